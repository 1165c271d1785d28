"""The best answer that does not look at the row, by what training rows have: what a tuned model has to beat.

As scikit-learn's DummyClassifier (most_frequent) and DummyRegressor (mean) answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune_api.text import clip

if TYPE_CHECKING:  # its module imports this one
    from finetune_trainer.tasks.base import JobFacts


@dataclass(frozen=True, slots=True)
class Constant:
    """`words`: the answer, for people. `outputs`: the logits of each row, or of each of its tokens where `tokens`.

    `decision`: how these become answers. `leaves_out`: metrics of it that say nothing.
    """

    words: str
    outputs: Sequence[float]
    tokens: bool = False
    decision: Mapping[str, Any] = field(default_factory=dict)
    leaves_out: tuple[str, ...] = ()


def always(name: str) -> str:
    """What people call the same class for every row."""
    return f"always {clip(name, 40)!r}"


def most_frequent(facts: JobFacts) -> Constant | None:
    """Where each row has one class: the one that most training rows have, the first of equal ones. Its score is its
    share, with one row more of each class, so that none is impossible. None where rows were not counted.
    """
    counts = list(facts.label_counts)
    if not counts:
        return None
    total = sum(counts) + len(counts)
    outputs = [math.log((n + 1) / total) for n in counts]
    return Constant(always(facts.labels[counts.index(max(counts))]), outputs)


def each_by_itself(facts: JobFacts, decision: Mapping[str, Any]) -> Constant | None:
    """Where a row has any number of classes: those that more than half of the training rows have, if any.

    None where rows were not counted. `decision`: an even share.
    """
    counts, rows = facts.label_counts, facts.rows
    if not counts or not rows:
        return None
    outputs = [math.log((n + 1) / (rows - n + 1)) - 1e-6 for n in counts]
    said = [name for name, n in zip(facts.labels, counts, strict=True) if 2 * n > rows]
    words = (
        f"always {', '.join(clip(name, 40) for name in said[:3])}{', …' if said[3:] else ''}" if said else "no class"
    )
    return Constant(words, outputs, decision=decision)
