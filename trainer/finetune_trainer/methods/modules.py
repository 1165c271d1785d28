"""Find a model's head, layers and linear layers by their place and kind, not by a table of architectures."""

from __future__ import annotations

from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.head import HeadPolicy


def head_modules(model: Any, head: HeadPolicy) -> dict[str, Any]:
    """The modules outside the base model (a classifier, the output projection), by name.

    A pooler is part of a new head.
    """
    prefix = model.base_model_prefix
    heads = {name: m for name, m in model.named_children() if name != prefix and any(True for _ in m.parameters())}
    if head.is_new:
        pooler = getattr(getattr(model, prefix, None), "pooler", None)
        if pooler is not None:
            heads[f"{prefix}.pooler"] = pooler
    if not heads:
        raise JobError(
            Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no head of its own to train", field="spec.method"
        )
    return heads


def layer_list(model: Any) -> tuple[str, Any]:
    """The stack of layers: the longest list of modules (the first of equals), with its dotted name."""
    from torch.nn import ModuleList

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, ModuleList)]
    if not lists:
        raise JobError(Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no list of layers", field="spec.method")
    return max(lists, key=lambda item: len(item[1]))


def modules_after(model: Any, layers_name: str) -> list[Any]:
    """Modules that stand after the layers in the base model: the siblings of the list and of the modules around it."""
    found: list[Any] = []
    path = layers_name.split(".")
    for depth in range(len(path)):
        parent = model.get_submodule(".".join(path[:depth]))
        names = [name for name, _ in parent.named_children()]
        found += [getattr(parent, name) for name in names[names.index(path[depth]) + 1 :]]
    return found


def linear_layers(model: Any) -> dict[str, Any]:
    """By name: torch's, and the transposed ones of GPT-2 and its kin."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)}
