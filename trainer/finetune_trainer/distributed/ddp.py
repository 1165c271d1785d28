"""Distributed data parallel on accelerators: accelerate prepares the model, gradients are reduced flat, once a step.

torch's DistributedDataParallel is not wrapped around it: its hooks reduce in the midst of the last backward pass, so a
rank that runs out of memory there leaves its peers waiting for the rest, and they need the same number of passes on
every rank.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from finetune_trainer.distributed.flat import FlatGradients
from finetune_trainer.distributed.ranks import Ranks


class DdpGradients(FlatGradients):
    """FlatGradients of a model that accelerate has prepared for its device and precision."""

    def __init__(self, model: Any, ranks: Ranks) -> None:
        from accelerate import Accelerator

        os.environ.update({"RANK": str(ranks.rank), "WORLD_SIZE": str(ranks.size), "LOCAL_RANK": str(ranks.local_rank)})
        os.environ.setdefault("MASTER_ADDR", "localhost")  # looked for by accelerate; the group is there already
        os.environ.setdefault("MASTER_PORT", "0")
        self._accelerator = Accelerator(
            mixed_precision="bf16" if ranks.precision == "bf16" else "no", cpu=ranks.device.type == "cpu"
        )
        super().__init__(self._accelerator.prepare_model(model, evaluation_mode=True), ranks)  # no DDP around it

    def backward(self, loss: torch.Tensor) -> None:
        """Add up."""
        self._accelerator.backward(loss)
