"""What a plan is made from: small frozen projections of a FineTuneJob, its children and what the trainer said.

The store keeps these instead of raw objects, so that memory goes by what a plan needs, not by what Kubernetes sends.
`from_object` takes an object as the API server sends it. All moments are seconds since the epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api import KIND
from finetune_api.base import FieldError, parse, parse_stored
from finetune_api.job import Spec
from finetune_api.lenient import parse_lenient
from finetune_api.report import Report
from finetune_api.status import Status
from finetune_api.times import seconds
from finetune_operator.job.attempt.container import WORDS, ContainerView
from finetune_operator.plan import names

_GATES = "ReadinessGatesNotReady"
"""The kubelet's reason where containers are ready and the pod is not."""
TERMINAL = ("Succeeded", "Failed")
"""Phases, and the conditions of the same names."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of ours."""

    name: str
    uid: str
    component: str  # names.PREPARE or names.WORKER
    attempt: int  # of the prepare step or of the workers: each counts its own
    created: float
    owner_uid: str | None = None  # UID of the Job that controls it
    owner_job: str = ""  # and its name, which tells component and attempt
    index: int | None = None
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    disruption: tuple[str, str] | None = None  # reason and message of a true DisruptionTarget condition
    deletion: float | None = None  # when its grace period is over, if it is being deleted
    told: float | None = None  # when its deletion was asked for
    silent: float | None = None  # since when its node is not heard of
    node: str = ""
    scheduled: float | None = None
    unschedulable: str | None = None  # the scheduler's words
    container: ContainerView | None = None
    image_id: str = ""  # the trainer's image as the node knows it

    @property
    def stem(self) -> str:
        """What the names of all children of its FineTuneJob begin with."""
        return self.owner_job.rpartition("-")[0]

    @property
    def deleting(self) -> bool:
        return self.deletion is not None

    @property
    def terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        """Whether the trainer's container runs now."""
        return not self.terminal and self.container is not None and self.container.running

    @property
    def begun(self) -> bool:
        """Whether the trainer's container was started; it may have ended, of which the pod's phase learns a second
        later."""
        container = self.container
        return self.terminal or (container is not None and (container.running or container.exit_code is not None))

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PodView | None:
        """A core/v1 Pod; None unless a Job controls it whose name we may have given."""
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        owner = _controller(meta)
        known = names.parse(owner.get("name") or "") if owner.get("kind") == "Job" else None
        if known is None:
            return None
        deletion = seconds(meta.get("deletionTimestamp"))
        grace = meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        placed, disrupted = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
        containers = [c for c in status.get("containerStatuses") or () if c.get("name") == names.CONTAINER]
        index = (meta.get("annotations") or {}).get(names.INDEX) or (meta.get("labels") or {}).get(names.INDEX)
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            component=known[1],
            attempt=known[2],
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            owner_uid=owner.get("uid"),
            owner_job=owner["name"],
            index=_whole(index),
            phase=status.get("phase") or "Pending",
            reason=status.get("reason") or "",
            message=(status.get("message") or "")[:WORDS],
            disruption=(
                (disrupted.get("reason") or "", (disrupted.get("message") or "")[:WORDS])
                if disrupted.get("status") == "True"
                else None
            ),
            deletion=deletion,
            told=None if deletion is None else deletion - (grace if isinstance(grace, int) else 30),
            silent=_silent(conditions),
            node=spec.get("nodeName") or "",
            scheduled=seconds(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None,
            unschedulable=(
                (placed.get("message") or placed.get("reason") or "")[:WORDS]
                if placed.get("status") == "False"
                else None
            ),
            container=ContainerView.from_status(containers[0]) if containers else None,
            image_id=sys.intern(str(containers[0].get("imageID") or "")[:WORDS]) if containers else "",
        )


@dataclass(frozen=True, slots=True)
class JobView:
    """A batch/v1 Job of ours."""

    name: str
    uid: str
    component: str
    attempt: int
    created: float
    owner_uid: str | None = None
    parallelism: int = 1
    suspended: bool = False  # spec.suspend: by a queue manager, the operator never sets it afterwards
    complete: bool = False
    failing: bool = False  # condition FailureTarget: it will fail once its pods are gone
    failed_condition: tuple[str, str] | None = None  # reason and message of a true Failed condition
    active: int = 0  # pods that the Job controller counts as at work
    terminating: int = 0  # pods that it counts as on their way out
    finished: float | None = None  # when it became complete or failed
    started: float | None = None  # status.startTime: reset when a queue manager admits it again
    deleting: bool = False
    queue_name: str | None = None
    restarts_used: int = 0  # of the restart budget, when it was made
    ca_digest: str = ""  # of the report server's CA in its ConfigMap
    image: str = ""  # that its pods' trainer runs

    @property
    def stem(self) -> str:
        """What the names of all children of its FineTuneJob begin with."""
        return self.name.rpartition("-")[0]

    @property
    def terminal(self) -> bool:
        return self.complete or self.failed_condition is not None

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> JobView | None:
        """A batch/v1 Job; None unless a FineTuneJob controls it, and it has a name that we give to children of that
        one."""
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
        owner, known = _controller(meta), names.parse(meta["name"])
        if known is None or owner.get("kind") != KIND or known[0] != names.stem(owner["name"], owner["uid"]):
            return None
        true = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
        failed = true.get("Failed")
        end = true.get("Complete") or failed
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            component=known[1],
            attempt=known[2],
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            owner_uid=owner["uid"],
            parallelism=spec.get("parallelism", 1),
            active=status.get("active") or 0,
            terminating=status.get("terminating") or 0,
            suspended=bool(spec.get("suspend")),
            complete="Complete" in true,
            failing="FailureTarget" in true,
            failed_condition=(failed.get("reason") or "", (failed.get("message") or "")[:WORDS]) if failed else None,
            finished=seconds(status.get("completionTime") or end.get("lastTransitionTime")) if end else None,
            started=seconds(status.get("startTime")),
            deleting="deletionTimestamp" in meta,
            queue_name=labels.get(names.QUEUE),
            restarts_used=_whole(notes.get(names.RESTARTS_USED)) or 0,
            ca_digest=notes.get(names.CA_DIGEST, ""),
            image=_image(spec),
        )


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
        owner = _controller(meta).get("uid")
        return cls(meta["name"], meta["namespace"], meta["uid"], owner) if owner else None


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
            return cls(errors=tuple(f"spec.{where}: {why}" for where, why in error.findings[:16]))
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


def report_order(pod: PodView, report: Report) -> tuple[bool, int, float, int]:
    """The order of reports: one is taken only if it is higher than the last one taken.

    Workers come after the prepare step, later attempts after earlier ones; a pod that a queue manager admitted again
    counts its sequence from 0 within the same attempt, so the pod's age goes before the sequence.
    """
    return pod.component == names.WORKER, pod.attempt, pod.created, report.sequence


def _whole(text: str | None) -> int | None:
    """A number of at most seven digits as text; None for anything else, of whatever length."""
    return int(text) if text and len(text) <= 7 and text.isascii() and text.isdecimal() else None


def _silent(conditions: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Since when the node controller, and not the kubelet, calls the pod not ready: a kubelet says so of the
    containers too."""
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    marked = ready.get("status") == "False" and containers.get("status") == "True"
    return seconds(ready.get("lastTransitionTime")) if marked and ready.get("reason") != _GATES else None


def _image(job_spec: Mapping[str, Any]) -> str:
    """The image of the trainer's container in a Job's template."""
    containers = ((job_spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return next(
        (sys.intern(str(c.get("image") or "")[:512]) for c in containers if c.get("name") == names.CONTAINER), ""
    )


def _controller(meta: Mapping[str, Any]) -> Mapping[str, str]:
    """The owner reference of its controller; empty if it has none."""
    owners: Iterable[Mapping[str, Any]] = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller")), {})
