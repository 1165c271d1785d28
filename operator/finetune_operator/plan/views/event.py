"""An Event, as a planner reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.times import seconds
from finetune_operator.plan.views.fields import WORDS


@dataclass(frozen=True, slots=True)
class EventView:
    """A core/v1 Event about a child."""

    reason: str
    message: str
    type: str = "Warning"
    time: float = 0.0

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> EventView:
        """A core/v1 Event."""
        when = (body.get("series") or {}).get("lastObservedTime") or body.get("lastTimestamp") or body.get("eventTime")
        when = when or body["metadata"].get("creationTimestamp")
        words = (body.get("message") or "")[:WORDS]
        return cls(body.get("reason") or "", words, body.get("type") or "Normal", seconds(when) or 0.0)
