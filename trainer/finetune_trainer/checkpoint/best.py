"""Which of two evaluations is the better one: asked by the loop, by early stopping, and by what keeps and exports
checkpoints.

All go by `rank`, so that what is called the best, what is kept and what is exported are the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.metrics import higher_is_better

Rank = tuple[float, float]


def rank(metrics: Mapping[str, float] | None, metric: str) -> Rank | None:
    """Larger is better: by the metric, equal ones by the lower validation loss.

    None where there is nothing to go by.
    """
    value, loss = (metrics or {}).get(metric), (metrics or {}).get("loss")
    if value is None or value != value:
        return None
    return value if higher_is_better(metric) else -value, float("-inf") if loss is None or loss != loss else -loss


def is_better(found: Mapping[str, float], best: Mapping[str, float] | None, metric: str) -> bool:
    """Whether an evaluation beats the best before it; the earlier one stays the best where both are equal."""
    mine, other = rank(found, metric), rank(best, metric)
    return mine is not None and (other is None or mine > other)


def gain(found: Mapping[str, float], best: Mapping[str, float] | None, metric: str) -> float:
    """By how much the metric alone is better than the best before it; below zero where it is worse."""
    mine, other = rank(found, metric), rank(best, metric)
    return float("inf") if other is None else float("-inf") if mine is None else mine[0] - other[0]
