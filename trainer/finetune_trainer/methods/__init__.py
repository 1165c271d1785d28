"""How to tune: which weights are trained. Each method takes a loaded model and returns the one to train."""

from __future__ import annotations

from typing import Any

from finetune_api.job import Method
from finetune_trainer.methods import freeze, full, lora
from finetune_trainer.model.head import HeadPolicy

_METHODS = {"full": full.apply, "freeze": freeze.apply, "lora": lora.apply}


def apply_method(model: Any, method: Method, head: HeadPolicy, seed: int) -> Any:
    """The model with exactly the method's weights trainable.

    Raises JobError naming the field that does not fit the model.
    """
    return _METHODS[method.type](model, method, head, seed)
