"""Train the head and the last k layers; the rest keeps its weights and needs neither gradients nor optimizer state.

The layers are the longest list of modules in the model; what comes after them and before the head (a final norm, a
pooler) is trained too when k > 0, since it reads what the last layer writes. The head of a language model is its output
projection; where that is tied to the embeddings these are trained with it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from finetune_api.exits import JobError, Reason
from finetune_api.job import Freeze, Method
from finetune_trainer.methods.modules import head_modules, layer_list
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.method.freeze.lastLayers"


def apply(model: Any, method: Method, head: HeadPolicy, seed: int) -> Any:
    """Freeze all but the head and the last layers. Raises JobError when the model has fewer layers."""
    count = (method.freeze or Freeze()).last_layers
    layers_name, layers = layer_list(model)
    if count > len(layers):
        raise JobError(
            Reason.INVALID_CONFIG,
            f"the model has {len(layers)} layers, not {count}",
            field=FIELD,
            hint=f"Set it to {len(layers)} at most.",
        )
    model.requires_grad_(False)
    for module in head_modules(model, head).values():
        module.requires_grad_(True)
    if count:
        layers[-count:].requires_grad_(True)
        for module in _after(model, layers_name):
            module.requires_grad_(True)
    return model


def _after(model: Any, layers_name: str) -> list[nn.Module]:
    """Modules that stand after the layers in the base model: the siblings of the list and of the modules around it."""
    found: list[nn.Module] = []
    path = layers_name.split(".")
    for depth in range(len(path)):
        parent = model.get_submodule(".".join(path[:depth]))
        names = [name for name, _ in parent.named_children()]
        found += [getattr(parent, name) for name in names[names.index(path[depth]) + 1 :]]
    return found
