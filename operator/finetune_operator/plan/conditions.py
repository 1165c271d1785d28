"""Conditions after the Kubernetes API conventions: the time moves only when the status does."""

from __future__ import annotations

from typing import Literal

from finetune_api.status import Condition, ConditionType
from finetune_api.text import clip
from finetune_api.times import rfc3339

Conditions = tuple[Condition, ...]


def put(
    conditions: Conditions, type_: ConditionType, holds: bool, reason: str, message: str, generation: int, now: float
) -> Conditions:
    """The conditions with this one set; its place in the list stays."""
    old = get(conditions, type_)
    status: Literal["True", "False"] = "True" if holds else "False"
    new = Condition(
        type=type_,
        status=status,
        reason=clip(reason, 64),
        message=clip(message, 1024),
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and old.status == status else rfc3339(now),
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if c.type == type_ else c for c in conditions)


def get(conditions: Conditions, type_: ConditionType) -> Condition | None:
    """The condition of that type."""
    return next((c for c in conditions if c.type == type_), None)


def holds(conditions: Conditions, type_: ConditionType) -> bool:
    """Whether the condition is there and true."""
    condition = get(conditions, type_)
    return condition is not None and condition.status == "True"


def finished(conditions: Conditions) -> bool:
    """Whether they say that it is over, in one way or the other."""
    return holds(conditions, ConditionType.SUCCEEDED) or holds(conditions, ConditionType.FAILED)
