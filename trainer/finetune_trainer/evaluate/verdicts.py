"""What the final evaluations show, by stated rules: whether tuning helped, whether the model has learned its rows by
heart or not at all, and what it has forgotten. Pure functions of scores.

An interval is a 95 % confidence interval of one evaluation. Two that part show a difference even though both were
measured on few rows; two that overlap may show chance, so that small sets raise no alarm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetune_api.metrics import LOSS, higher_is_better
from finetune_api.status import Verdict
from finetune_api.text import clip

LARGE_GAP = 0.05
"""Of a metric whose best is 1, training and held-out rows part by so much where a model over-fits."""
LARGE_RATIO = 1.1
"""Of a metric whose best is 0 (a loss, an error), by this factor."""
LITTLE, PERHAPS = 0.1, 0.25
"""Of the way from the constant answer to a perfect one, a model that under-fits has gone less than the first, and even
by the better bounds of its intervals less than the second."""
HALF = 0.5
"""Of the same way, of a metric whose best is 1, a model that has learned less on its training rows may under-fit."""
FORGOTTEN = 1.05
"""A loss or an error that has grown by this factor, or 1 - F1 and the like, shows forgetting."""

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value and its interval; both bounds are the value itself where there is no interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, metrics: Metrics, metric: str) -> Estimate | None:
        """None where there is none that is a number."""
        value = metrics.get(metric, math.nan)
        low, high = metrics.get(f"{metric}-low", value), metrics.get(f"{metric}-high", value)
        return cls(value, low, high) if all(map(math.isfinite, (value, low, high))) else None


def errors(metrics: Metrics, metric: str) -> Estimate | None:
    """The metric as an error, of which 0 is best: itself, or 1 less it."""
    found = Estimate.of(metrics, metric)
    if found is None or not higher_is_better(metric):
        return found
    return Estimate(1 - found.value, 1 - found.high, 1 - found.low)


def compared(metric: str, *evaluations: Metrics) -> tuple[str, list[Estimate]] | None:
    """What they are compared by, and the error of each: the metric that chooses, if all have it, else the loss; None
    where one lacks both.
    """
    return _first((metric, LOSS), evaluations)


def _first(names: Iterable[str], evaluations: Sequence[Metrics]) -> tuple[str, list[Estimate]] | None:
    """The first of these metrics that all have, and the error of each by it."""
    for name in names:
        found = [error for error in (errors(each, name) for each in evaluations) if error is not None]
        if len(found) == len(evaluations):
            return name, found
    return None


def against(kind: str, other: str, metrics: Metrics, before: Metrics, metric: str, rows: str) -> Verdict | None:
    """Whether a model beats what it is compared with on the same rows.

    `kind`: for the verdict's; `other`: what it is compared with, for people; `rows`: which ones, as "80 test rows".
    """
    found = compared(metric, metrics, before)
    if found is None:
        return None
    name, (mine, theirs) = found
    figures = f"{name} {before[name]:.4g} → {metrics[name]:.4g} on the {rows}"
    if mine.value >= theirs.value:
        message = (
            f"No better than {other} on these rows: {figures}. Do not deploy it as it is: look at the learning rate,"
            " the epochs, the columns and the labels."
        )
        return _verdict(f"NoBetterThan{kind}", message, warning=True)
    if mine.high < theirs.low:
        return _verdict(f"BetterThan{kind}", f"Better than {other}: {figures}; the 95 % intervals part.")
    message = f"Better than {other}: {figures}; but the 95 % intervals overlap, so that it may be chance."
    return _verdict(f"PerhapsBetterThan{kind}", message)


def forgotten(sets: Mapping[str, Metrics], before: Mapping[str, Metrics], metric: str) -> Verdict | None:
    """On which sets a model has become clearly worse than it was before tuning; both by the set's name.

    That is by a factor of FORGOTTEN, of the error. None where there are none of both.
    """
    worse, judged = [], 0
    for name in sets.keys() & before.keys():
        found = compared(metric, sets[name], before[name])
        if found is None:
            continue
        by, (mine, theirs) = found
        judged += 1
        if mine.value >= FORGOTTEN * theirs.value and mine.value > theirs.value:
            clear = "" if mine.low > theirs.high else " (the intervals overlap)"
            verb = "fell" if higher_is_better(by) else "rose"
            figures = f"from {before[name][by]:.4g} to {sets[name][by]:.4g}{clear}"
            worse.append((mine.value / max(theirs.value, 1e-12), f"{by} on set {name} {verb} {figures}"))
    if not judged:
        return None
    if not worse:
        return _verdict("NothingForgotten", "No sign of forgetting: no set is clearly worse than before tuning.")
    told = "; ".join(text for _, text in sorted(worse, reverse=True))
    message = f"Forgetting: {told}. Method lora, a lower learning rate, or such rows among the training rows help."
    return _verdict("Forgetting", message, warning=True)


def fit(
    learned: Metrics,
    held: Metrics,
    constant: Metrics | None,
    metric: str,
    *,
    rows: tuple[str, str],
    steps: tuple[int, int],
) -> Verdict | None:
    """Whether a model knows the rows that it learned from much better than others, or neither of them.

    Over-fitting: the intervals part, and the gap is at least LARGE_GAP, or the factor LARGE_RATIO. Under-fitting: on
    both it has gone less than LITTLE of the way from the constant answer to a perfect one, and by the better bounds of
    both intervals less than PERHAPS. Perhaps under-fitting, where it does not over-fit: less than HALF of the way on
    training rows, even by their interval's better bound. `learned` and `constant` are of training rows, `held` of
    held-out ones; `rows`: both for people; `steps`: of the weights and of the run. None where no metric has an interval
    in both.
    """
    found = _by_interval(metric, learned, held)
    if found is None:
        return None
    name, (mine, others) = found
    figures = f"{name} {learned[name]:.4g} on {rows[0]}, {held[name]:.4g} on {rows[1]}"
    large = mine.value + LARGE_GAP if higher_is_better(name) else mine.value * LARGE_RATIO
    if others.value >= large and others.low > mine.high:
        step = f"; the weights are those of step {steps[0]:,} of {steps[1]:,}" if steps[0] < steps[1] else ""
        message = (
            f"Over-fitting: {figures} (the 95 % intervals part){step}. Fewer epochs, more dropout or weight decay,"
            " freezing layers, or more data may help."
        )
        return _verdict("Overfitting", message)
    naive = errors(constant or {}, name)
    if naive is not None and naive.value > 0 and _near(naive.value, mine) and _near(naive.value, others):
        message = (
            f"Under-fitting: {figures}, and a constant answer has {(constant or {})[name]:.4g}. More steps, a higher"
            " learning rate, or training more of the weights may help."
        )
        return _verdict("Underfitting", message)
    if naive is not None and 0 < (1 - HALF) * naive.value < mine.low and higher_is_better(name):
        message = (
            f"Perhaps under-fitting: {figures}; even on training rows less than half of what a constant answer misses"
            " is learned. Unless the labels leave no more to learn, more steps, a higher learning rate or training more"
            " of the weights help."
        )
        return _verdict("PerhapsUnderfitting", message)
    return _verdict("Fits", f"No sign of over-fitting or under-fitting: {figures}.")


def _near(constant: float, found: Estimate) -> bool:
    """Whether an error is hardly below that of a constant answer."""
    return found.value > (1 - LITTLE) * constant and found.low > (1 - PERHAPS) * constant


def _by_interval(metric: str, *evaluations: Metrics) -> tuple[str, list[Estimate]] | None:
    """As `compared`, by metrics that have an interval in each: the one that chooses, else the first."""
    known = [n.removesuffix("-low") for n in evaluations[0] if n.endswith("-low") and all(n in m for m in evaluations)]
    return _first(sorted(known, key=lambda name: name != metric), evaluations)


def _verdict(kind: str, message: str, *, warning: bool = False) -> Verdict:
    return Verdict(kind=kind, message=clip(message, 384), warning=warning)
