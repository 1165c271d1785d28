"""Goodput: which share of the time that workers held their machines went into steps that were kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finetune_api.status import AttemptStatus
from finetune_api.times import seconds

IDLE = ("queue",)
"""Seconds in which no machine is held."""


def goodput(attempts: Sequence[AttemptStatus]) -> float | None:
    """Of the attempts listed, newest first; None before the first step."""
    useful = held = 0.0
    for entry in attempts:
        spent = entry.seconds or {}
        told = sum(s for name, s in spent.items() if name not in IDLE)
        held += max(told, _wall(entry) - sum(spent.get(name, 0.0) for name in IDLE))
        useful += spent.get("train", 0.0) * _kept_share(entry)
    if not held or not any((a.seconds or {}).get("train") for a in attempts):
        return None
    share = useful / held
    return round(min(1.0, max(0.0, share)), 4) if math.isfinite(share) else None


def _wall(entry: AttemptStatus) -> float:
    start, end = seconds(entry.start_time), seconds(entry.end_time)
    return end - start if start is not None and end is not None else 0.0


def _kept_share(entry: AttemptStatus) -> float:
    """Steps kept of the steps done; all of them as long as none was done again."""
    if entry.lost_steps is None or entry.last_step is None:
        return 1.0
    done = entry.last_step - (entry.from_step or 0)
    return max(0.0, done - entry.lost_steps) / done if done > 0 else 1.0
