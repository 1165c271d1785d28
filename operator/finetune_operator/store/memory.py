"""What the operator knows of a job from other sources than its objects: reports, refusals, Events read."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from finetune_api.report import Report
from finetune_operator.job.observed import Refusal, Resource, report_order
from finetune_operator.plan.plan import Create
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView


@dataclass(frozen=True, slots=True)
class Received:
    """The newest report of a job, packed, with what tells a later one from it."""

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

    def holds(self, job: Resource, creates: tuple[Create, ...], now: float) -> bool:
        """Whether the same is to be made again, and it is too early for it. A changed spec is tried at once."""
        same = bool(creates) and self.target == (job.generation, creates[0].name)
        return same and self.until is not None and now < self.until


@dataclass(slots=True)
class Memory:
    """What is known of a job from other sources than its objects; lost with the process, and found out again."""

    conflicts: tuple[str, ...] = ()  # of the last apply
    refusals: tuple[Refusal, ...] = ()  # of the last apply
    setback: Setback = field(default_factory=Setback)
    events: dict[str, tuple[EventView, ...]] = field(default_factory=dict)
    events_read: dict[str, float] = field(default_factory=dict)
    controllers: dict[str, str] = field(default_factory=dict)  # its Jobs that are gone: name by UID
    looked_up: dict[str, JobView | None] = field(
        default_factory=dict
    )  # by name: its Job as it was when its pods were listed
    report: Received | None = None
    written: float = 0.0  # when its status was last written
