"""The trainer's container, as a pod's status tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.times import seconds
from finetune_operator.plan.views.fields import WORDS


@dataclass(frozen=True, slots=True)
class ContainerView:
    """The trainer's container in a pod: waiting, running (started_at set, exit_code None) or terminated."""

    exit_code: int | None = None
    reason: str = ""  # of termination: Completed, Error, OOMKilled, ContainerStatusUnknown
    message: str = ""  # the termination message, at most 4 KiB
    waiting_reason: str = ""
    waiting_message: str = ""
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def running(self) -> bool:
        return self.started_at is not None and self.exit_code is None

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> ContainerView:
        """A core/v1 ContainerStatus."""
        state = status.get("state") or {}
        waiting, running, ended = state.get("waiting") or {}, state.get("running") or {}, state.get("terminated") or {}
        return cls(
            exit_code=ended.get("exitCode"),
            reason=ended.get("reason") or "",
            message=(ended.get("message") or "")[:4096],
            waiting_reason=waiting.get("reason") or "",
            waiting_message=(waiting.get("message") or "")[:WORDS],
            started_at=seconds(running.get("startedAt") or ended.get("startedAt")),
            finished_at=seconds(ended.get("finishedAt")),
        )
