"""How long a job has rested: the time in which it was suspended, or waited in a queue, counts against no deadline."""

from __future__ import annotations

from finetune_api.status import ConditionType, Status
from finetune_api.times import seconds
from finetune_operator.plan import conditions

QUEUED = "WaitingForQueue"
"""Reason of the condition Suspended while a queue manager, not the user, lets the job wait."""


def rested(status: Status, now: float) -> float:
    """Seconds that the job has rested so far."""
    total = status.suspended_seconds or 0.0
    condition = conditions.get(status.conditions, ConditionType.SUSPENDED)
    since = seconds(condition.last_transition_time) if condition and condition.status == "True" else None
    return total + (max(0.0, now - since) if since is not None else 0.0)
