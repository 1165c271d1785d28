"""Options of spec.training that would change nothing with this model and method: said, never passed over (I8)."""

from __future__ import annotations

import copy
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding
from finetune_api.tuning import Training
from finetune_trainer.methods.modules import depths
from finetune_trainer.methods.phases import awake
from finetune_trainer.model.head import HeadPolicy

KIND = "WithoutEffect"
LAYER_DECAY = "spec.training.layerDecay"


def without_effect(training: Training, model: Any, head: HeadPolicy, *, rests: bool = False) -> list[Finding]:
    """`model`: built without its weights, of which those that the method trains require gradients; `rests`: its other
    parts run as in an evaluation.

    Raises JobError where layerDecay is asked for a model whose layers are not to be found.
    """
    from finetune_trainer.model.dropout import override_dropout

    found = []
    if training.dropout is not None and not override_dropout(copy.deepcopy(model.config), training.dropout):
        found.append(
            f"spec.training.dropout has no effect: the config of {type(model).__name__} has no probability of dropout"
        )
    elif training.dropout is not None and rests and not any(map(_drops, awake(model))):
        found.append("spec.training.dropout has no effect: there is no dropout in what the method trains")
    if training.layer_decay is not None and training.layer_decay < 1.0 and _one_depth(model, head):
        found.append(f"{LAYER_DECAY} has no effect: everything that the method trains lies at one depth")
    return [Finding(kind=KIND, message=f"{message}; remove it.") for message in found]


def _drops(module: Any) -> bool:
    """Whether it drops something itself, by a part of its own or by a probability that it keeps."""
    own = (*vars(module).items(), *module.named_children())
    return any("drop" in name and value is not None for name, value in own)


def _one_depth(model: Any, head: HeadPolicy) -> bool:
    try:
        deep = depths(model, head)
    except JobError as error:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"{error.message}, whose rates could decay from one to the next",
            field=LAYER_DECAY,
            hint="Remove it.",
        ) from None
    return len({deep[name] for name, p in model.named_parameters() if p.requires_grad}) <= 1
