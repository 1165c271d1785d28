"""Train the head and the last k layers; the rest keeps its weights and needs neither gradients nor optimizer state.

The layers are the longest list of modules in the model; what comes after them and before the head (a final norm, a
pooler) is trained too when k > 0, since it reads what the last layer writes. The head of a language model is its output
projection; where that is tied to the embeddings these are trained with it.
"""

from __future__ import annotations

from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.method import METHODS
from finetune_api.tuning import Freeze
from finetune_trainer.methods.base import Identity, TuningMethod
from finetune_trainer.methods.modules import head_modules, layer_list, modules_after
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.method.freeze.lastLayers"


def apply(model: Any, settings: Freeze, head: HeadPolicy, seed: int) -> Any:
    """Freeze all but the head and the last layers. Raises JobError when the model has fewer layers."""
    count = settings.last_layers
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
        for module in modules_after(model, layers_name).values():
            module.requires_grad_(True)
    return model


def check(model: Any, settings: Freeze, head: HeadPolicy) -> tuple[()]:
    """Raises JobError as `apply` does, which needs no weights."""
    apply(model, settings, head, seed=0)
    return ()


METHOD = TuningMethod(
    METHODS["freeze"],
    apply,
    check,
    phrase="the head and the last layers tuned",
    title="head and last layers tuned",
    defaults=Freeze(),
    identity={"freezeLastLayers": Identity(FIELD, lambda settings: settings.last_layers)},
)
