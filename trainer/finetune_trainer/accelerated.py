"""Gradients by accelerate: device placement, mixed precision and DDP; the one place that knows about it.

DDP reduces once a step, in the backward pass of each rank's last micro-batch; before it, gradients add up under no_sync.
A rank without rows, or one that gives up, takes part with an empty pass (`join`), so unequal numbers of micro-batches
never hang. DDP divides by the world size; that is undone, and the sum is divided by the global count (I1).
"""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist

from finetune_api.exits import JobError, Reason
from finetune_trainer.distributed import Ranks


class AcceleratedGradients:
    """The same calls as FlatGradients."""

    def __init__(self, model: Any, ranks: Ranks) -> None:
        from accelerate import Accelerator

        os.environ.update({"RANK": str(ranks.rank), "WORLD_SIZE": str(ranks.size), "LOCAL_RANK": str(ranks.local_rank)})
        os.environ.setdefault("MASTER_ADDR", "localhost")  # looked for by accelerate; the group is there already
        os.environ.setdefault("MASTER_PORT", "0")
        self._ranks = ranks
        self._accelerator = Accelerator(
            mixed_precision="bf16" if ranks.precision == "bf16" else "no", cpu=ranks.device.type == "cpu"
        )
        self.model = self._accelerator.prepare_model(model)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._synced = False

    def begin(self) -> None:
        """Zero in place: DDP's buckets hold views of the gradients."""
        self._synced = False
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.zero_()

    def micro(self, *, last: bool) -> AbstractContextManager[Any]:
        """Reduce in the last only."""
        self._synced = last
        return contextlib.nullcontext() if last or self._ranks.size == 1 else self._accelerator.no_sync(self.model)

    def backward(self, loss: torch.Tensor) -> None:
        """Add up; DDP reduces here in the last micro-batch."""
        try:
            self._accelerator.backward(loss)
        except dist.DistError as error:
            raise JobError(
                Reason.PEER_LOST,
                f"another worker went away or did not answer in time: {str(error).splitlines()[0][:300]}",
            ) from error

    def join(self) -> None:
        """The reducing pass, without effect on the sum, if this rank has not made it."""
        if self._ranks.size > 1 and not self._synced:
            ids = torch.zeros((1, 8), dtype=torch.long, device=self._ranks.device)
            with self.micro(last=True), self._ranks.autocast():
                self.backward(self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().sum() * 0.0)

    def finish(self, count: float) -> float:
        """Undo DDP's mean, divide by the count."""
        grads = [p.grad for p in self._trained if p.grad is not None]
        torch._foreach_mul_(grads, self._ranks.size / count)
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))

    def clip(self, factor: float) -> None:
        """Scale all."""
        torch._foreach_mul_([p.grad for p in self._trained if p.grad is not None], factor)
