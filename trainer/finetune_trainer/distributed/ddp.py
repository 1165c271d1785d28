"""Accelerate prepares the model for its device and precision; gradients come together as on CPUs, once a step.

DDP's hooks are not used: they reduce in the midst of the last backward pass, so a rank that runs out of memory there
leaves
its peers waiting for the rest, and they need the same number of passes on every rank.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from finetune_trainer.distributed.ranks import FlatGradients, Ranks


class AcceleratedGradients(FlatGradients):
    """FlatGradients of a model on an accelerator."""

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
