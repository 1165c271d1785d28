"""A headless Service, as a planner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.plan.views.fields import controller


@dataclass(frozen=True, slots=True)
class ServiceView:
    """The headless Service of an attempt; it has the Job's name."""

    name: str
    namespace: str
    uid: str
    owner_uid: str

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> ServiceView | None:
        """A core/v1 Service; None if nothing controls it."""
        meta = body["metadata"]
        owner = controller(meta).get("uid")
        return cls(meta["name"], meta["namespace"], meta["uid"], owner) if owner else None
