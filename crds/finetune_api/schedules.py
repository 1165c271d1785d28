"""How the learning rate falls after the warm-up: one row each, its formula included.

A rate is a function of the step alone, so that a resumed run needs no scheduler state (I3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fall:
    """Where a run is behind its warm-up."""

    update: int  # updates made since the warm-up, from 0
    updates: int  # of these in all, at least 1
    warmup: int  # updates of the warm-up
    decay_ratio: float
    cycles: int

    @property
    def done(self) -> float:
        """Share of the updates behind the warm-up that are made, at most 1."""
        return min(1.0, self.update / self.updates)


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """What all parts agree on about a schedule."""

    name: str
    what: str  # for people
    share: Callable[[Fall], float]  # of the peak rate, 0 to 1
    settings: tuple[str, ...] = ()  # fields of spec.training that only this schedule reads


def _cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _inverse_sqrt(fall: Fall) -> float:
    start = max(1, fall.warmup)
    return math.sqrt(start / (start + fall.update))


def _wsd(fall: Fall) -> float:
    last = min(fall.updates, max(1, round(fall.decay_ratio * (fall.warmup + fall.updates))))  # share of the whole run
    return min(1.0, max(0, fall.updates - fall.update) / last)


def _restarts(fall: Fall) -> float:
    return _cosine(fall.update * fall.cycles % fall.updates / fall.updates) if fall.update < fall.updates else 0.0


DEFAULT_DECAY_RATIO = 0.2
DEFAULT_CYCLES = 3

SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        ScheduleInfo("linear", "straight to zero", lambda fall: 1.0 - fall.done),
        ScheduleInfo("cosine", "half a cosine to zero (Loshchilov & Hutter 2017)", lambda fall: _cosine(fall.done)),
        ScheduleInfo("constant", "not at all", lambda fall: 1.0),
        ScheduleInfo("inverse-sqrt", "with the square root of the step (Vaswani et al. 2017)", _inverse_sqrt),
        ScheduleInfo(
            "wsd", "not until the last decayRatio of the steps, then straight (Hu et al. 2024)", _wsd, ("decayRatio",)
        ),
        ScheduleInfo(
            "cosine-restarts",
            "half a cosine in each of scheduleCycles parts (Loshchilov & Hutter 2017)",
            _restarts,
            ("scheduleCycles",),
        ),
    )
}

DEFAULT_SCHEDULE = "linear"


def rate_at(
    update: int,
    *,
    peak: float,
    total: int,
    warmup: int,
    schedule: str,
    decay_ratio: float | None = None,
    cycles: int | None = None,
) -> float:
    """Learning rate of update 1..total: rises linearly over `warmup` updates to the peak, then falls as the schedule
    says.
    """
    if update <= warmup:
        return peak * update / warmup
    fall = Fall(
        update - 1 - warmup,
        max(1, total - warmup),
        warmup,
        decay_ratio or DEFAULT_DECAY_RATIO,
        cycles or DEFAULT_CYCLES,
    )
    return peak * SCHEDULES[schedule].share(fall)
