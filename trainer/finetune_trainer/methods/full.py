"""Train every weight."""

from __future__ import annotations

from typing import Any

from finetune_api.method import METHODS
from finetune_trainer.methods.base import TuningMethod
from finetune_trainer.model.head import HeadPolicy


def apply(model: Any, settings: None, head: HeadPolicy, seed: int) -> Any:
    """The model as it is."""
    return model.requires_grad_(True)


def check(model: Any, settings: None, head: HeadPolicy) -> tuple[()]:
    """Every model will do."""
    return ()


METHOD = TuningMethod(METHODS["full"], apply, check, phrase="all weights tuned", title="all weights tuned")
