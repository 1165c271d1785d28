"""The plan while it is being made: policies add to it one after the other, and `decide` seals it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_api.exits import EXITS
from finetune_api.job import Spec
from finetune_api.status import AttemptStatus, ConditionType, Failure, Phase, Status
from finetune_api.status_budget import within_budget
from finetune_api.text import clip, join
from finetune_api.times import rfc3339
from finetune_operator.job.attempt import history, queue_manager
from finetune_operator.job.evidence import Evidence
from finetune_operator.job.observed import Observed
from finetune_operator.job.status.goodput import goodput
from finetune_operator.plan import conditions
from finetune_operator.plan.plan import Create, Delete, Note, Patch, Plan


@dataclass(slots=True)
class Draft:
    """Status so far, and the writes collected."""

    observed: Observed
    spec: Spec
    status: Status
    evidence: Evidence
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
        return conditions.finished(self.status.conditions)

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

    def resolve(self, type_: ConditionType, reason: str) -> None:
        """Take a condition back, if it was ever set."""
        if conditions.get(self.status.conditions, type_):
            self.condition(type_, False, reason)

    def record(self, entries: Iterable[AttemptStatus]) -> None:
        """Set the list of attempts: these, and earlier admissions of theirs."""
        found = history.kept((*entries, *queue_manager.earlier(self.status.attempts)))
        self.update(attempts=found, goodput=goodput(found))

    def note(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.notes.append(Note(type_, reason, clip(message, 1024)))

    def wake_in(self, seconds: float | None) -> None:
        """Plan again after so many seconds at the latest; None: there is nothing to wait for."""
        if seconds is None:
            return
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

    def fail_attempt(self, failure: Failure, at: float | None) -> None:
        """End the job as failed by its current attempt: if that is one of the prepare step, nothing was validated."""
        if not self.evidence.prepared:
            self.condition(ConditionType.VALIDATED, False, failure.reason, failure.message)
        self.fail(failure, at)

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
