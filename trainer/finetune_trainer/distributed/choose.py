"""Which gradient strategy suits the device."""

from __future__ import annotations

from typing import Any

from finetune_trainer.distributed.flat import FlatGradients
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.distributed.strategy import GradientStrategy


def strategy_for(model: Any, ranks: Ranks) -> GradientStrategy:
    """ddp on accelerators, flat on CPUs."""
    if ranks.device.type == "cuda":
        from finetune_trainer.distributed.ddp import DdpGradients  # late: accelerate takes seconds to import

        return DdpGradients(model, ranks)
    return FlatGradients(model, ranks)
