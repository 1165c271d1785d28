"""What the operator knows of a job from other sources than its objects: reports, refusals, Events read."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from finetune_api.report import Report
from finetune_operator.job.observed import Refusal, report_order
from finetune_operator.plan.plan import Create
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView

REFUSED_SECONDS, REFUSED_LONGEST = 30.0, 300.0
"""What could not be made is tried again after so long, each time twice as long, up to the longest."""
EVENTS_SECONDS = 10.0
"""Events of a child are read again after so long."""
EVENTS = 20
"""So many of a child's newest Events are kept."""
LOOKS = 16
"""Of so many attempts of a job it is remembered that they were looked up."""


@dataclass(frozen=True, slots=True)
class Received:
    """The newest report of a job, packed, with what distinguishes a later one from it."""

    order: tuple[bool, int, float, int]  # observed.report_order
    component: str  # of the pod that sent it
    stage: str
    time: float  # when it came, by our clock
    packed: bytes

    @classmethod
    def of(cls, report: Report, pod: PodView, time: float) -> Received:
        packed = zlib.compress(report.model_dump_json(by_alias=True, exclude_none=True).encode(), 1)
        return cls(report_order(pod, report), pod.component, report.stage, time, packed)

    def unpack(self) -> Report:
        return Report.model_validate_json(zlib.decompress(self.packed), by_name=False)


@dataclass(frozen=True, slots=True)
class Setback:
    """That a child could not be made: of which generation of the spec and which child, how often in a row, and until
    when to wait.
    """

    target: tuple[int, str] | None = None
    times: int = 0
    until: float | None = None

    def holds(self, generation: int, creates: tuple[Create, ...], now: float) -> bool:
        """Whether the same is to be made again, and it is too early for it. A changed spec is tried at once."""
        same = bool(creates) and self.target == (generation, creates[0].name)
        return same and self.until is not None and now < self.until

    def again(self, generation: int, child: str, now: float) -> Setback:
        """After one more: a quota may stay full for days, so it is asked ever less often."""
        target = (generation, child)
        times = self.times + 1 if self.target == target else 1
        return Setback(target, times, now + min(REFUSED_LONGEST, REFUSED_SECONDS * 2.0 ** (times - 1)))


@dataclass(slots=True)
class Memory:
    """What is known of a job from other sources than its objects; lost with the process, and found out again.

    Changed by its own methods only, which are named for what happened.
    """

    conflicts: tuple[str, ...] = ()  # of the last apply
    refusals: tuple[Refusal, ...] = ()  # of the last apply
    setback: Setback = field(default_factory=Setback)
    events: dict[str, tuple[EventView, ...]] = field(default_factory=dict)  # by the name of the child
    deleted_jobs: dict[str, str] = field(default_factory=dict)  # its Jobs that are gone: name by UID
    looked_up: dict[str, JobView | None] = field(default_factory=dict)  # by name: its Job when its pods were listed
    report: Received | None = None
    written: float = 0.0  # when its status was last written
    _events_asked: dict[str, float] = field(default_factory=dict)

    def creates_done(
        self,
        generation: int,
        creates: tuple[Create, ...],
        conflicts: tuple[str, ...],
        refusals: tuple[Refusal, ...],
        now: float,
    ) -> bool:
        """The children were made, or could not be. Returns whether that differs from the last time."""
        news = (conflicts, refusals) != (self.conflicts, self.refusals)
        self.conflicts, self.refusals = conflicts, refusals
        failed = bool(conflicts or refusals)
        self.setback = self.setback.again(generation, creates[0].name, now) if failed else Setback()
        return news

    def status_written(self, now: float) -> None:
        self.written = now

    def report_received(self, report: Received) -> None:
        self.report = report

    def job_finished(self) -> None:
        """All of it is in the status now."""
        self.report = None
        self.events.clear()

    def child_deleted(self, uid: str, name: str) -> None:
        """A Job of it is gone; its pods may outlive it, and still report."""
        self.deleted_jobs[uid] = name

    def pods_listed(self, name: str, job: JobView | None) -> None:
        """The pods of the Job of that name were listed, when the Job was as given."""
        self.looked_up[name] = job
        while len(self.looked_up) > LOOKS:
            del self.looked_up[next(iter(self.looked_up))]

    def ask_events(self, name: str, now: float) -> bool:
        """Whether it is time to read a child's Events (again); then it counts as asked."""
        if now - self._events_asked.get(name, float("-inf")) < EVENTS_SECONDS:
            return False
        self._events_asked[name] = now
        return True

    def events_read(self, name: str, events: list[EventView]) -> None:
        self.events[name] = tuple(sorted(events, key=lambda event: event.time)[-EVENTS:])
