"""Train a new head on pooled outputs of a model that stays as it was: each row becomes one vector, always the same.

The trunk runs as in an evaluation, so that its vectors can be computed once.
"""

from __future__ import annotations

from typing import Any

from finetune_api.method import METHODS
from finetune_api.tuning import Features
from finetune_trainer.methods.base import Identity, TuningMethod, by_applying
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.pooling import AUTO, LINEAR, Pooled

FIELD = "spec.method.features"


def head(policy: HeadPolicy, settings: Features) -> HeadPolicy:
    """On the pooling that is wanted."""
    return policy.on_pooled(Pooled(settings.pooling or AUTO, settings.head or LINEAR, settings.hidden, field=FIELD))


def apply(model: Any, settings: Features, head: HeadPolicy, seed: int) -> Any:
    """Freeze the trunk."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    return model


METHOD = TuningMethod(
    METHODS["features"],
    apply,
    by_applying(apply),
    phrase="a new head on its pooled outputs; its own weights are as they were",
    title="head on pooled outputs",
    defaults=Features(),
    identity={
        "featuresPooling": Identity(f"{FIELD}.pooling", lambda settings: settings.pooling or AUTO),
        "featuresHead": Identity(f"{FIELD}.head", lambda settings: settings.head or LINEAR),
        "featuresHidden": Identity(f"{FIELD}.hidden", lambda settings: settings.hidden),
    },
    head=head,
    rests=lambda settings: True,
)
