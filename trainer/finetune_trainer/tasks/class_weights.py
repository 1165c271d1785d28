"""What the classes weigh: spec.training.classWeights.

balanced: n/(k·n_c) for a class of n_c of the n training rows, k classes that occur (King and Zeng 2001, "Logistic
regression in rare events data"; scikit-learn's compute_class_weight). The mean over the training rows is 1, so that the
divisor of the loss stays the count of rows, and the learning rate keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.tasks.base import JobFacts

BALANCED = "balanced"


def class_weights(facts: JobFacts) -> tuple[float, ...] | None:
    """The weight of each class, where a row has exactly one; None: all the same."""
    if facts.training.class_weights != BALANCED:
        return None
    counts = _counts(facts)
    rows, occurring = sum(counts), sum(n > 0 for n in counts)
    return tuple(rows / (occurring * n) if n else 1.0 for n in counts)


def weights_beside(facts: JobFacts) -> tuple[tuple[float, float], ...] | None:
    """(weight of a row without it, weight of a row with it) of each class, where a row has any number of them.

    None: all the same. Each class is one of two: k = 2, and the rows with it weigh as much together as the others.
    """
    if facts.training.class_weights != BALANCED:
        return None
    n = facts.rows
    return tuple((n / (2 * (n - c)), n / (2 * c)) if 0 < c < n else (1.0, 1.0) for c in _counts(facts))


def _counts(facts: JobFacts) -> Sequence[int]:
    assert len(facts.label_counts) == len(facts.labels), "the prepare step counts what it is to weigh"
    return facts.label_counts
