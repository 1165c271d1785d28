"""Train every weight."""

from __future__ import annotations

from typing import Any

from finetune_api.job import Method
from finetune_trainer.model.head import HeadPolicy


def apply(model: Any, method: Method, head: HeadPolicy, seed: int) -> Any:
    """The model as it is."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
