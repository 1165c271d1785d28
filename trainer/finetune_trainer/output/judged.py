"""How the result was judged beside the test rows: on further sets. Plain values, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api.metrics import LOSS, higher_is_better
from finetune_api.status import SetScore

MOST_METRICS = 5
"""Columns of metrics in a table."""


@dataclass(frozen=True, slots=True)
class Scores:
    """An evaluation: how many rows were judged; metrics and their bounds by name."""

    rows: int
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is no number is null."""
        return {"rows": self.rows, **{k: v if math.isfinite(v) else None for k, v in self.metrics.items()}}


@dataclass(frozen=True, slots=True)
class Judged:
    """`sets`: the result, by the name of the set. `base`: the model before tuning, by split. `constant`: the best
    answer that does not look at the row, `constant_words` what that is; on the rows that the result is judged by.
    `validation`: the result on the validation rows, with bounds; `learned`: on a draw of the training rows.
    """

    sets: Mapping[str, Scores] = field(default_factory=dict)
    base: Mapping[str, Scores] = field(default_factory=dict)
    constant: Scores | None = None
    constant_words: str = ""
    validation: Scores | None = None
    learned: Scores | None = None


def in_short(name: str, scores: Scores, metric: str) -> SetScore:
    """A set as status shows it: the metric that chooses, its bounds, and the loss."""
    wanted = (metric, f"{metric}-low", f"{metric}-high", LOSS)
    found = {key: float(scores.metrics[key]) for key in dict.fromkeys(wanted) if key in scores.metrics}
    return SetScore(name=name, rows=scores.rows, metrics={k: v for k, v in found.items() if math.isfinite(v)})


def score_table(
    lines: Mapping[str, Scores], metric: str, beside: str | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows, ready to be shown: a line for each of these evaluations, the chosen metric first, bounds where
    there are any. `beside`: the line that the others are compared with, in a last column.
    """
    names = [name for scores in lines.values() for name in scores.metrics if not name.endswith(("-low", "-high"))]
    shown = sorted(dict.fromkeys(names), key=lambda name: name != metric)[:MOST_METRICS]
    compared = beside in lines and all(metric in scores.metrics for scores in lines.values())
    head = ("", "rows", *shown, *((f"{metric}, beside {beside}",) if compared and beside else ()))
    rows = []
    for line, scores in lines.items():
        cells = [line, f"{scores.rows:,}", *(_cell(scores.metrics, name) for name in shown)]
        if compared and beside:
            cells.append("" if line == beside else f"{scores.metrics[metric] - lines[beside].metrics[metric]:+.4f}")
        rows.append(tuple(cells))
    return head, rows


def _cell(metrics: Mapping[str, float], name: str) -> str:
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "-low", "-high"))
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")


def worse_by(value: float, than: float, metric: str) -> float:
    """How much worse a value of a metric is than another; below zero where it is better."""
    return than - value if higher_is_better(metric) else value - than


def worst(sets: Mapping[str, Scores], metric: str) -> str | None:
    """The set on which the metric is worst; the first of equal ones, None where none has it."""
    known = {name: scores.metrics[metric] for name, scores in sets.items() if _known(scores, metric)}
    return max(known, key=lambda name: worse_by(known[name], 0.0, metric), default=None)


def _known(scores: Scores, metric: str) -> bool:
    return math.isfinite(scores.metrics.get(metric, math.nan))


def words_of_worst(name: str, lines: Mapping[str, Scores], metric: str, beside: str) -> str:
    """A sentence: the metric on the worst set, and how far from that of the job's own rows."""
    value = lines[name].metrics[metric]
    text = f"Worst on set {name!r}: {metric} {value:.4g}"
    own = lines[beside].metrics.get(metric) if beside in lines else None
    if own is None:
        return f"{text}."
    by = worse_by(value, own, metric)
    where = f"the {own:.4g} of the {beside} rows"
    return f"{text}, no worse than {where}." if by <= 0 else f"{text}, worse by {by:.4g} than {where}."
