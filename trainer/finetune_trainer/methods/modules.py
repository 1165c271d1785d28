"""Find a model's head and its layers by their place, not by a table of architectures."""

from __future__ import annotations

from typing import Any

from torch import nn

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.head import HeadPolicy


def head_modules(model: Any, head: HeadPolicy) -> dict[str, nn.Module]:
    """The modules outside the base model (a classifier, the output projection), by name; a pooler counts as head."""
    prefix = model.base_model_prefix
    heads = {
        name: module
        for name, module in model.named_children()
        if name != prefix and any(True for _ in module.parameters())
    }
    if head.is_new:
        base = getattr(model, prefix, None)
        pooler = getattr(base, "pooler", None)
        if isinstance(pooler, nn.Module):
            heads[f"{prefix}.pooler"] = pooler
    if not heads:
        raise JobError(
            Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no head of its own to train", field="spec.method"
        )
    return heads


def layer_list(model: Any) -> tuple[str, nn.ModuleList]:
    """The stack of layers: the longest list of modules (the first of equals), with its dotted name."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise JobError(Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no list of layers", field="spec.method")
    return max(lists, key=lambda item: len(item[1]))
