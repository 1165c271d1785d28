"""Low-rank adapters by peft on every linear layer but the head, which is trained whole for classification.

Only the adapters and the head are trained, checkpointed and written; the base stays as it was. Adapters start at zero
effect, from spec.training.seed.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from finetune_api.exits import JobError, Reason
from finetune_api.job import Lora, Method
from finetune_trainer.methods.modules import head_modules
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.method.lora.targetModules"


def apply(model: Any, method: Method, head: HeadPolicy, seed: int) -> Any:
    """The peft model. Raises JobError when targetModules match no linear layer."""
    from peft import LoraConfig, get_peft_model

    settings = method.lora or Lora()
    heads = head_modules(model, head)
    targets = targets_of(model, settings, heads)
    linear = [m for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in targets and isinstance(m, _linear())]
    adapters = LoraConfig(
        task_type=head.peft_task,
        r=settings.rank,
        lora_alpha=settings.alpha if settings.alpha is not None else 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=bool(linear)
        and all(not isinstance(m, nn.Linear) for m in linear),  # GPT-2 keeps its weights transposed
        modules_to_save=sorted({name.rsplit(".", 1)[-1] for name in heads}) if head.is_new else None,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings")  # parted when merged: output/model.py
        return get_peft_model(model, adapters)


def targets_of(model: Any, settings: Lora, heads: dict[str, nn.Module]) -> list[str]:
    """The last parts of the linear layers' names, heads left out.

    Raises JobError when targetModules match no linear layer.
    """
    inside = {id(m) for head in heads.values() for m in head.modules()}
    linear = sorted(
        {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, _linear()) and id(m) not in inside}
    )
    if settings.target_modules is None:
        if not linear:
            raise JobError(
                Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no linear layers outside its head", field=FIELD
            )
        return linear
    names = {n for n, m in model.named_modules() if isinstance(m, _linear() | nn.Embedding)}
    for target in settings.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            message = f"no linear layer is named {target!r}; the model has {', '.join(linear[:12])}"
            raise JobError(Reason.INVALID_CONFIG, message, field=FIELD, hint="Name linear layers of the model.")
    return list(settings.target_modules)


def _linear() -> Any:
    """Linear layers: torch's, and the transposed ones of GPT-2 and its kin."""
    from transformers.pytorch_utils import Conv1D  # late: imports are made lean first

    return nn.Linear | Conv1D
