"""Train the head, the last k layers and what is named; the rest keeps its weights and needs neither gradients nor
optimizer state.

The layers are the longest list of modules in the model; what comes after them and before the head (a final norm, a
pooler) is trained too when a layer is, since it reads what the last layer writes. The head of a language model is its
output projection; where that is tied to the embeddings these are trained with it. With `unfreeze` one more layer is
trained at each boundary, from the top (Howard & Ruder 2018).
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.method import METHODS
from finetune_api.tuning import Freeze, Unfreeze
from finetune_trainer.methods.base import Identity, Opening, TuningMethod, by_applying
from finetune_trainer.methods.modules import head_modules, layer_list, modules_after, named, near
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.method.freeze.lastLayers"
TRAINABLE = "spec.method.freeze.trainable"
UNFREEZE = "spec.method.freeze.unfreeze"


def apply(model: Any, settings: Freeze, head: HeadPolicy, seed: int) -> Any:
    """Freeze all that no step trains. Raises JobError for more layers than there are, and a name that fits nothing."""
    count = last_layers(model, settings)
    chosen = [name for pattern in settings.trainable or () for name in matching(model, pattern)]
    model.requires_grad_(False)
    for module in head_modules(model, head).values():
        module.requires_grad_(True)
    if count or settings.unfreeze is not None:
        layers_name, layers = layer_list(model)
        layers[0 if settings.unfreeze is not None else -count :].requires_grad_(True)
        for module in modules_after(model, layers_name).values():
            module.requires_grad_(True)
    for name in chosen:
        model.get_parameter(name).requires_grad_(True)
    return model


def last_layers(model: Any, settings: Freeze) -> int:
    """How many entries of the list of layers are trained from the start. Raises JobError, as `apply`."""
    count = settings.last_layers
    if not count and settings.unfreeze is None:
        return 0
    _, layers = layer_list(model)
    declared = getattr(model.config, "num_hidden_layers", None) or len(layers)
    if declared > len(layers):  # each entry is passed through several times, as in ALBERT
        if settings.unfreeze is not None:
            message = f"the model's {declared} layers share their weights: they cannot be trained one after the other"
            raise JobError(Reason.INVALID_CONFIG, message, field=UNFREEZE, hint="Remove it.")
        if count != declared:
            message = f"the model's {declared} layers share their weights: none can be trained without the others"
            hint = f"Set it to 0 or {declared}."
            raise JobError(Reason.INVALID_CONFIG, message, field=FIELD, hint=hint)
        return len(layers)
    if count > len(layers):
        raise JobError(
            Reason.INVALID_CONFIG,
            f"the model has {len(layers)} layers, not {count}",
            field=FIELD,
            hint=f"Set it to {len(layers)} at most.",
        )
    return count


def matching(model: Any, pattern: str) -> list[str]:
    """The parameters that a name of modules or a pattern stands for. Raises JobError where these are none."""
    parameters = [name for name, _ in model.named_parameters()]
    places = tuple(f"{place}." for place in named(model, pattern))
    found = [name for name in parameters if fnmatchcase(name, pattern) or name.startswith(places)]
    if not found:
        known = [*(name for name, _ in model.named_modules() if name), *parameters]
        message = f"{pattern!r} is the name of no module with weights, and no weight's name is like it"
        raise JobError(Reason.INVALID_CONFIG, message, field=TRAINABLE, hint=near(pattern, known))
    return found


def openings(model: Any, settings: Freeze, head: HeadPolicy, steps_per_epoch: int) -> list[Opening]:
    """One layer at each boundary, from the top; what `trainable` names is trained from the start."""
    if settings.unfreeze is None:
        return []
    name, layers = layer_list(model)
    at_once = {found for pattern in settings.trainable or () for found in matching(model, pattern)}
    at_once |= {found for place in head_modules(model, head) for found in inside(model, place)}
    behind = {found for place in modules_after(model, name) for found in inside(model, place)}
    listed = []
    for number, i in enumerate(reversed(range(len(layers) - settings.last_layers)), 1):
        own = inside(model, f"{name}.{i}") | (behind if number == 1 and not settings.last_layers else set())
        step = boundary(settings.unfreeze, number, steps_per_epoch) + 1
        listed.append(Opening(step, f"{name}.{i}", frozenset(own - at_once)))
    return listed


def inside(model: Any, place: str) -> set[str]:
    """The parameters of a module."""
    return {name for name, _ in model.named_parameters() if name.startswith(f"{place}.")}


def boundary(rule: Unfreeze, number: int, steps_per_epoch: int) -> int:
    """The step after which this many layers more are trained."""
    if rule.every_steps is not None:
        return number * rule.every_steps
    return max(number, math.ceil(number * (rule.every_epochs or 1.0) * steps_per_epoch))


METHOD = TuningMethod(
    METHODS["freeze"],
    apply,
    by_applying(apply),
    phrase="the head and the last layers tuned",
    title="head and last layers tuned",
    defaults=Freeze(),
    identity={
        "freezeLastLayers": Identity(FIELD, lambda settings: settings.last_layers),
        "freezeTrainable": Identity(TRAINABLE, lambda settings: list(settings.trainable or ())),
        "freezeEvalTrunk": Identity("spec.method.freeze.evalTrunk", lambda settings: settings.eval_trunk is not False),
        "freezeUnfreeze": Identity(UNFREEZE, lambda settings: settings.unfreeze and settings.unfreeze.to_json()),
    },
    openings=openings,
    rests=lambda settings: settings.eval_trunk is not False,
)
