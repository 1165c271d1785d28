"""The device that a rank computes on, and the precision that suits it."""

from __future__ import annotations

import torch

from finetune_api.exits import JobError, Reason
from finetune_api.run import World


def device_for(world: World, local_rank: int) -> torch.device:
    """The CPU, or the CUDA device of this process. Raises InvalidConfig where there is none."""
    if world.device == "cpu" or (world.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        hint = "Ask for one in limits, as nvidia.com/gpu: 1, and use an image with CUDA."
        raise JobError(
            Reason.INVALID_CONFIG, "no CUDA device can be used here", field="spec.workers.resources", hint=hint
        )
    if local_rank >= torch.cuda.device_count():
        raise JobError(
            Reason.INVALID_CONFIG,
            f"process {local_rank} of this worker has no CUDA device of its own",
            field="spec.workers.processesPerWorker",
            hint=f"This worker has {torch.cuda.device_count()} devices; ask for more or lower processesPerWorker.",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def precision_for(wanted: str, device: torch.device) -> str:
    """auto: bf16 where an accelerator has it; on CPUs fp32, since few have fast bf16."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
