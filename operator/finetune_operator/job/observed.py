"""What one plan is made from: the job with its children as seen, what the trainer said, and the operator's settings.

All moments are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api.base import FieldError, parse, parse_stored
from finetune_api.job import Spec
from finetune_api.lenient import parse_lenient
from finetune_api.report import Report
from finetune_api.status import Status
from finetune_api.times import seconds
from finetune_operator.plan import names
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView
from finetune_operator.plan.views.service import ServiceView

TERMINAL = ("Succeeded", "Failed")
"""Phases, and the conditions of the same names."""


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """A spec as stored: read leniently, since a newer version may have written it.

    `spec` is None exactly where `errors` say why.
    """

    spec: Spec | None = None
    errors: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> StoredSpec:
        """Of a FineTuneJob's `spec`."""
        try:
            stored, extra = parse_stored(Spec, dict(body))
            spec = parse(Spec, stored.to_json())  # with the rules of a cluster: no file:// in a pod
        except FieldError as error:
            return cls(errors=tuple(f"spec.{where}: {why}" for where, why in error.errors[:16]))
        return cls(spec, ignored=tuple(f"spec.{name}" for name in extra[:32]))


@dataclass(frozen=True, slots=True)
class Resource:
    """The FineTuneJob itself. `spec` is None exactly where `spec_errors` says why it cannot be read."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: float
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    spec: Spec | None = None
    spec_errors: tuple[str, ...] = ()
    ignored_fields: tuple[str, ...] = ()
    status: Status = field(default_factory=Status)
    unread_status: tuple[str, ...] = ()  # parts of the status that another version wrote and this one cannot read
    ended: bool = False  # whether the stored status says, in any version's words, that the job is over

    @classmethod
    def from_object(cls, body: Mapping[str, Any], read: StoredSpec | None = None) -> Resource:
        """A FineTuneJob as stored; `read` is its spec where that has been read before."""
        meta = body["metadata"]
        read = read or StoredSpec.read(body.get("spec") or {})
        status, unread = parse_lenient(Status, body.get("status") or {})
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=meta.get("generation") or 0,
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            deleting="deletionTimestamp" in meta,
            labels=dict(meta.get("labels") or {}),
            spec=read.spec,
            spec_errors=read.errors,
            ignored_fields=read.ignored,
            status=status,
            unread_status=tuple(unread[:32]),
            ended=ended(body.get("status") or {}),
        )


def ended(status: Mapping[str, Any]) -> bool:
    """Whether a stored status, of whatever version, is that of a job that is over: it never begins anew."""
    if status.get("completionTime") or status.get("phase") in TERMINAL:
        return True
    conditions = status.get("conditions")
    return any(
        isinstance(c, dict) and c.get("type") in TERMINAL and c.get("status") == "True"
        for c in (conditions if isinstance(conditions, list) else ())
    )


@dataclass(frozen=True, slots=True)
class Rival:
    """Another FineTuneJob of the namespace that writes to the same prefix, to one above it, or to one within it."""

    name: str
    created: float
    uid: str
    active: bool  # neither Succeeded nor Failed nor being deleted
    uri: str = ""  # its output, without a closing slash


@dataclass(frozen=True, slots=True)
class Refusal:
    """A create that the API server refused in the last apply of this job's plan; the next apply starts a new list."""

    kind: str
    name: str
    code: int  # HTTP status: 422 is final, 403 (quota, admission) may heal
    message: str


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What the operator's configuration gives to every plan."""

    trainer_image: str
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    report_url: str | None = None  # https://<service>.<namespace>.svc:8443, without a path
    report_ca: str | None = None  # PEM
    report_interval: float = 5.0
    fs_group: int | None = 65532


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that one plan depends on."""

    job: Resource
    settings: PlanSettings
    now: float
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    report: Report | None = None  # the latest accepted one, by `report_order`
    report_component: str = names.WORKER  # of the pod that sent it
    report_received: float | None = None
    listening_since: float = 0.0  # since when this operator takes reports
    conflicts: tuple[str, ...] = ()  # of the last apply: "ConfigMap ft-x-1 belongs to ..."
    refusals: tuple[Refusal, ...] = ()  # of the last apply
    events: Mapping[str, tuple[EventView, ...]] = field(default_factory=dict)  # by name of the Job or Pod asked for
    rivals: tuple[Rival, ...] = ()
    looked_up: Container[str] = frozenset()  # names of Jobs whose pods were listed since the Job is as it is here
    services: tuple[ServiceView, ...] = ()  # those known; there may be more

    def child(self, component: str, number: int) -> str:
        """Name of the Job of an attempt."""
        return names.child(self.job.name, self.job.uid, component, number)


def report_order(pod: PodView, report: Report) -> tuple[bool, int, float, int]:
    """The order of reports: one is taken only if it is higher than the last one taken.

    Workers come after the prepare step, later attempts after earlier ones; a pod that a queue manager admitted again
    counts its sequence from 0 within the same attempt, so the pod's age goes before the sequence.
    """
    return pod.component == names.WORKER, pod.attempt, pod.created, report.sequence
