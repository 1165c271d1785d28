"""The plan while it is being made: policies add to it one after the other, and `decide` seals it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_api.exits import EXITS
from finetune_api.job import Spec
from finetune_api.status import ConditionType, Failure, Phase, Status
from finetune_api.status_budget import within_budget
from finetune_api.text import clip, join
from finetune_api.times import rfc3339
from finetune_operator.job.observed import Observed
from finetune_operator.plan import conditions
from finetune_operator.plan.plan import Create, Delete, Note, Patch, Plan


@dataclass(slots=True)
class Draft:
    """Status so far, and the writes collected."""

    observed: Observed
    spec: Spec
    status: Status
    create: list[Create] = field(default_factory=list)
    patch: list[Patch] = field(default_factory=list)
    delete: list[Delete] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    read_events: list[str] = field(default_factory=list)
    look_up: list[str] = field(default_factory=list)
    wake: float | None = None
    delete_self: bool = False

    @property
    def now(self) -> float:
        return self.observed.now

    @property
    def finished(self) -> bool:
        return self.holds(ConditionType.SUCCEEDED) or self.holds(ConditionType.FAILED)

    def update(self, **fields: Any) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def say(self, phase: Phase, reason: str | None = None, message: str | None = None) -> None:
        """Set the phase with its explanation."""
        self.update(
            phase=phase, reason=clip(reason, 128) if reason else None, message=clip(message, 1024) if message else None
        )

    def holds(self, type_: ConditionType) -> bool:
        return conditions.holds(self.status.conditions, type_)

    def condition(self, type_: ConditionType, holds: bool, reason: str, message: str = "") -> bool:
        """Set a condition. Returns whether its status changed."""
        was = conditions.get(self.status.conditions, type_)
        job = self.observed.job
        found = conditions.put(self.status.conditions, type_, holds, reason, message, job.generation, self.now)
        self.update(conditions=found)
        return was is None or (was.status == "True") != holds

    def note(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.notes.append(Note(type_, reason, clip(message, 1024)))

    def wake_in(self, seconds: float) -> None:
        """Plan again after so many seconds at the latest."""
        seconds = max(0.0, seconds)
        self.wake = seconds if self.wake is None else min(self.wake, seconds)

    def fail(self, failure: Failure, at: float | None = None) -> None:
        """End the job as failed, at the moment given or now."""
        hint = failure.hint or EXITS[failure.reason].hint if failure.reason in EXITS else failure.hint  # type: ignore[index]
        self.update(failure=failure, completion_time=rfc3339(at or self.now))
        self.condition(ConditionType.RUNNING, False, "Failed")
        self.condition(ConditionType.SUCCEEDED, False, failure.reason)
        self.condition(ConditionType.FAILED, True, failure.reason, failure.message)
        self.say(Phase.FAILED, failure.reason, failure.message)
        self.note("Warning", "Failed", join(f"{failure.reason}: {failure.message}", hint))

    def succeed(self, at: float | None) -> None:
        """End the job as succeeded."""
        assert self.status.output is not None
        message = f"the result is at {self.status.output.uri}"
        self.update(completion_time=rfc3339(at or self.now))
        self.condition(ConditionType.RUNNING, False, "Completed")
        self.condition(ConditionType.SUCCEEDED, True, "Completed", message)
        self.say(Phase.SUCCEEDED, "Completed", message)
        self.note("Normal", "Succeeded", message)

    def seal(self) -> Plan:
        return Plan(
            status=within_budget(self.status),
            create=tuple(self.create),
            patch=tuple(self.patch),
            delete=tuple(self.delete),
            notes=tuple(self.notes),
            requeue_after=self.wake,
            read_events=tuple(self.read_events),
            delete_self=self.delete_self,
        )
