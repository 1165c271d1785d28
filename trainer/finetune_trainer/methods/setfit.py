"""Tune a model from few rows by comparing them, as SetFit does (Tunstall et al. 2022, arXiv 2209.11055): embeddings of
rows of one class are brought near each other, those of different classes apart; then a linear head is fitted to them.

n rows give n²/2 comparisons, so the trunk learns more from each than a new head's gradient would teach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_api.method import METHODS
from finetune_api.tuning import Setfit
from finetune_trainer.methods.base import Identity, Lesson, TuningMethod, by_applying
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.pooling import AUTO, OWN, Pooled

if TYPE_CHECKING:  # it brings torch
    from finetune_trainer.objectives.base import Objective

FIELD = "spec.method.setfit"


def head(policy: HeadPolicy, settings: Setfit) -> HeadPolicy:
    """A linear one on the pooling that is wanted."""
    return policy.on_pooled(Pooled(settings.pooling or AUTO, field=FIELD))


def apply(model: Any, settings: Setfit, head: HeadPolicy, seed: int) -> Any:
    """Train the trunk, as far as the vectors hang on it; the head is fitted."""
    model.requires_grad_(True)
    model.head.requires_grad_(False)
    unused = getattr(model.trunk, "pooler", None)
    if unused is not None and model.pooling != OWN:
        unused.requires_grad_(False)
    return model


def objective() -> Objective:
    """Of groups of rows."""
    from finetune_trainer.objectives.likeness import likeness

    return likeness


METHOD = TuningMethod(
    METHODS["setfit"],
    apply,
    by_applying(apply),
    phrase="all weights tuned by comparing rows, and a head fitted to its pooled outputs",
    title="tuned by comparing rows, with a fitted head",
    defaults=Setfit(),
    identity={"setfitPooling": Identity(f"{FIELD}.pooling", lambda settings: settings.pooling or AUTO)},
    head=head,
    lesson=Lesson(
        objective,
        layer=lambda model: model.head.output,
        strength=lambda settings: 1.0 if settings.l2 is None else settings.l2,
    ),
)
