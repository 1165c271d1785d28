"""What the operator knows of the cluster: small projections, never raw bodies.

Watch events, relists and the answers to our own writes all come in by `put`; an older version of an object never replaces a
newer one. `snapshot` gives planning everything about one job. A watch that lost its place never reports what was deleted
meanwhile, so a relist removes what it did not find (ghosts). A job's spec and status are kept packed: a thousand parsed
histories would fill the memory.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from finetune_api.report import Report
from finetune_operator.cluster import FINETUNE_JOB, JOB, POD, Kind
from finetune_operator.outputs import Outputs
from finetune_operator.plan import finish, names
from finetune_operator.plan.observed import (
    EventView,
    JobView,
    Observed,
    PlanSettings,
    PodView,
    Refusal,
    Resource,
    Rival,
    StoredSpec,
    report_order,
)
from finetune_operator.plan.plan import Create
from finetune_operator.plan.times import seconds
from finetune_operator.recent import Recent

Key = tuple[str, str]
"""Namespace and name of a FineTuneJob."""

TERMINAL = ("Succeeded", "Failed")
SPECS, RESOURCES = 2048, 64
"""So many specs, and whole jobs, are kept parsed; a status with its history takes a hundred times its packed size."""
_KEPT = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp", "labels", "annotations")
_DROPPED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(slots=True)
class _Record:
    """A FineTuneJob: what is asked for often, and the rest packed."""

    key: Key
    uid: str
    version: int
    created: float
    generation: int
    phase: str
    deleting: bool
    output: str  # where it writes to, see _output
    rests: bool  # finished, and the status is of the spec as it is now
    ends: float | None  # when its time to live is over
    trigger: int  # changes when something other than the status does
    packed: bytes

    @property
    def active(self) -> bool:
        return self.phase not in TERMINAL and not self.deleting


@dataclass(slots=True)
class _Child:
    """A Job or Pod of ours."""

    namespace: str
    version: int
    view: JobView | PodView


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
    """That a child could not be made: of which generation of the spec and which child, how often in a row, and until when to wait."""

    target: tuple[int, str] | None = None
    times: int = 0
    until: float | None = None

    def holds(self, job: Resource, creates: tuple[Create, ...], now: float) -> bool:
        """Whether the same is to be made again, and it is too early for it. A changed spec is tried at once."""
        same = bool(creates) and self.target == (job.generation, creates[0].name)
        return same and self.until is not None and now < self.until


@dataclass(slots=True)
class _Memory:
    """What is known of a job from other sources than its objects; lost with the process, and found out again."""

    conflicts: tuple[str, ...] = ()  # of the last apply
    refusals: tuple[Refusal, ...] = ()  # of the last apply
    setback: Setback = field(default_factory=Setback)
    events: dict[str, tuple[EventView, ...]] = field(default_factory=dict)
    events_read: dict[str, float] = field(default_factory=dict)
    controllers: set[str] = field(default_factory=set)  # UIDs of its Jobs that are gone
    report: Received | None = None
    written: float = 0.0  # when its status was last written


class Store:
    """Only touched from the event loop; every method is synchronous, so each sees a consistent whole."""

    def __init__(self) -> None:
        self._records: dict[Key, _Record] = {}
        self._keys: dict[str, Key] = {}
        self._children: dict[str, dict[str, _Child]] = defaultdict(dict)  # by FineTuneJob UID, by child UID
        self._owners: dict[str, str] = {}  # child UID -> FineTuneJob UID
        self._outputs: Outputs[Key] = Outputs()
        self._memory: dict[str, _Memory] = {}
        self._specs: Recent[tuple[str, int], StoredSpec] = Recent(SPECS)
        self._resources: Recent[tuple[str, int], Resource] = Recent(RESOURCES)
        self.listening_since = 0.0  # since when reports are taken
        self._graves: dict[str, set[str]] = {}  # per kind, UIDs deleted while it is being relisted

    # ------------------------------------------------------------ what comes in

    def put(self, kind: Kind, obj: dict[str, Any]) -> set[Key]:
        """Take an object in. Returns the keys to reconcile: empty when nothing that matters has changed."""
        if kind is FINETUNE_JOB:
            return self._put_job(obj)
        return self._put_child(kind, obj)

    def drop(self, kind: Kind, uid: str) -> set[Key]:
        """The object of this UID is gone. Returns the keys to reconcile."""
        if kind.kind in self._graves:
            self._graves[kind.kind].add(uid)
        if kind is FINETUNE_JOB:
            key = self._keys.get(uid)
            return self._forget_job(key) if key else set()
        owner = self._owners.pop(uid, None)
        if owner is None:
            return set()
        child = self._children[owner].pop(uid, None)
        if child and isinstance(child.view, JobView) and child.view.owner_uid == owner:
            self.memory(owner).controllers.add(uid)  # its pods may outlive it, and still report
        if not self._children[owner]:
            del self._children[owner]
        return {self._keys[owner]} if owner in self._keys else set()

    def begin_relist(self, kind: Kind) -> frozenset[str]:
        """Before a LIST of `kind` is sent: the UIDs known now. What is deleted from here on stays deleted."""
        self._graves[kind.kind] = set()
        return (
            frozenset(self._keys)
            if kind is FINETUNE_JOB
            else frozenset(u for u, c in self._each_child() if _is_kind(c, kind))
        )

    def put_listed(self, kind: Kind, obj: dict[str, Any]) -> set[Key]:
        """As `put`, but of an object that was listed: it may have been deleted since."""
        return set() if obj["metadata"]["uid"] in self._graves.get(kind.kind, ()) else self.put(kind, obj)

    def end_relist(self, kind: Kind, before: frozenset[str], seen: set[str]) -> set[Key]:
        """After the LIST: whatever was known before and was not seen is a ghost, and goes. Returns the keys to reconcile."""
        self._graves.pop(kind.kind, None)
        changed: set[Key] = set()
        for uid in before - seen:
            changed |= self.drop(kind, uid)
        return changed

    def abort_relist(self, kind: Kind) -> None:
        self._graves.pop(kind.kind, None)

    # ------------------------------------------------------------ what goes out

    def snapshot(self, key: Key, settings: PlanSettings, now: float) -> Observed | None:
        """Everything known of a job; None if there is no such job."""
        record = self._records.get(key)
        if record is None:
            return None
        memory = self.memory(record.uid)
        views = [child.view for child in self._children.get(record.uid, {}).values()]
        received = memory.report
        return Observed(
            job=self._resources.get((record.uid, record.version), lambda: self._unpack(record)),
            jobs=tuple(
                sorted((v for v in views if isinstance(v, JobView) and v.owner_uid == record.uid), key=lambda v: v.name)
            ),
            pods=tuple(sorted((v for v in views if isinstance(v, PodView)), key=lambda v: (v.name, v.uid))),
            report=received.unpack() if received else None,
            report_component=received.component if received else names.WORKER,
            report_received=received.time if received else None,
            listening_since=self.listening_since,
            conflicts=memory.conflicts,
            refusals=memory.refusals,
            events=dict(memory.events),
            rivals=self._rivals(record),
            settings=settings,
            now=now,
        )

    def memory(self, uid: str) -> _Memory:
        """The job's memory; an empty one, kept only for jobs that exist."""
        if uid in self._keys:
            return self._memory.setdefault(uid, _Memory())
        return _Memory()

    def uid(self, key: Key) -> str | None:
        record = self._records.get(key)
        return record.uid if record else None

    def version(self, uid: str) -> str:
        """The resourceVersion of that job as last seen; "0" if there is none."""
        key = self._keys.get(uid)
        return str(self._records[key].version) if key else "0"

    def phase(self, key: Key) -> str | None:
        """The phase as last stored; "" before the first status, None if there is no such job."""
        record = self._records.get(key)
        return record.phase if record else None

    def pod(self, job_uid: str, pod_uid: str) -> PodView | None:
        """A pod that a Job of this very FineTuneJob controls; a pod that merely carries the label is none."""
        children = self._children.get(job_uid, {})
        pod = children[pod_uid].view if pod_uid in children else None
        if not isinstance(pod, PodView) or pod.owner_uid is None:
            return None
        owner = children[pod.owner_uid].view if pod.owner_uid in children else None
        if owner is None:
            ours = self._outlives(pod, job_uid)
        else:
            ours = isinstance(owner, JobView) and owner.owner_uid == job_uid
        return pod if ours else None

    def newest(self, job_uid: str) -> tuple[bool, int]:
        """Whether workers have been made, and the number of the newest attempt (or try of the prepare step)."""
        views = (child.view for child in self._children.get(job_uid, {}).values())
        jobs = (v for v in views if isinstance(v, JobView) and v.owner_uid == job_uid)
        return max(((v.component == names.WORKER, v.attempt) for v in jobs), default=(False, 0))

    def keys(self) -> list[Key]:
        return list(self._records)

    def due(self, key: Key) -> float | None:
        """When the job needs work, in seconds since the epoch: 0 for now, None where nothing is left to do for it.

        A finished job needs none but to be cleaned up after, and to be deleted when its time to live is over.
        """
        record = self._records.get(key)
        if record is None or (record.deleting and record.phase in TERMINAL):
            return None
        if not record.rests or self._untidy(record.uid):
            return 0.0
        return record.ends

    def phases(self) -> dict[str, int]:
        """Jobs by phase."""
        counts: dict[str, int] = defaultdict(int)
        for record in self._records.values():
            counts[record.phase or "Pending"] += 1
        return dict(counts)

    def size(self) -> tuple[int, int]:
        """Jobs and children held."""
        return len(self._records), len(self._owners)

    # ------------------------------------------------------------ inside

    def _unpack(self, record: _Record) -> Resource:
        body = json.loads(zlib.decompress(record.packed))
        spec = self._specs.get((record.uid, record.trigger), lambda: StoredSpec.read(body["spec"]))
        return Resource.from_object(body, spec)

    def _untidy(self, uid: str) -> bool:
        """Whether a finished job has children that plan/finish.py does not keep."""
        views = (child.view for child in self._children.get(uid, {}).values())
        jobs = [v for v in views if isinstance(v, JobView) and v.owner_uid == uid and not v.deleting]
        newest = {v.component: max(w.attempt for w in jobs if w.component == v.component) for v in jobs}
        return any(not v.terminal or v.attempt <= newest[v.component] - finish.KEEP for v in jobs)

    def _outlives(self, pod: PodView, job_uid: str) -> bool:
        """Whether the pod's Job, gone by now, was this job's: a suspend deletes the Job while its pods still write a checkpoint.

        After a restart nobody remembers that Job; then the pod must be on its way out, and its Job's name the one that we give.
        """
        key = self._keys.get(job_uid)
        if key is None or pod.owner_uid in self.memory(job_uid).controllers:
            return key is not None
        return pod.deleting and pod.owner_job == names.child(key[1], job_uid, pod.component, pod.attempt)

    def _put_job(self, obj: dict[str, Any]) -> set[Key]:
        meta = obj["metadata"]
        key, uid, version = (meta["namespace"], meta["name"]), meta["uid"], int(meta["resourceVersion"])
        old = self._records.get(key)
        if old and old.uid == uid and old.version >= version:
            return set()
        changed: set[Key] = set()
        if old and old.uid != uid:
            changed |= self._forget_job(key)
            old = None
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        slim = {k: v for k, v in meta.items() if k in _KEPT}
        if _DROPPED in (slim.get("annotations") or {}):
            slim["annotations"] = {k: v for k, v in slim["annotations"].items() if k != _DROPPED}
        trigger = hash(json.dumps([slim, spec], sort_keys=True))
        record = _Record(
            key=key,
            uid=uid,
            version=version,
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            generation=int(meta.get("generation") or 0),
            phase=str(status.get("phase") or ""),
            deleting="deletionTimestamp" in meta,
            output=_output(meta["namespace"], spec),
            rests=str(status.get("phase") or "") in TERMINAL
            and status.get("observedGeneration") == meta.get("generation"),
            ends=_ends(spec, status),
            trigger=trigger,
            packed=zlib.compress(
                json.dumps({"metadata": slim, "spec": spec, "status": status}, separators=(",", ":")).encode(), 6
            ),
        )
        self._records[key], self._keys[uid] = record, key
        if old and old.output != record.output:
            changed |= self._outputs.sharing(old.output) - {key}
            self._outputs.remove(key, old.output)
        self._outputs.add(key, record.output)
        if old is None or old.trigger != trigger:
            changed.add(key)
        if old is None or old.active != record.active:
            changed |= self._outputs.sharing(record.output) - {key}
        return changed

    def _put_child(self, kind: Kind, obj: dict[str, Any]) -> set[Key]:
        meta = obj["metadata"]
        uid, version = meta["uid"], int(meta["resourceVersion"])
        owner = str((meta.get("labels") or {}).get(names.JOB_UID) or "")
        old = self._children.get(owner, {}).get(uid)
        if not owner or (old and old.version >= version):
            return set()
        view = JobView.from_object(obj) if kind is JOB else PodView.from_object(obj)
        if view is None:
            return set()
        self._children[owner][uid] = _Child(meta["namespace"], version, view)
        self._owners[uid] = owner
        key = self._keys.get(owner)
        if key is None or key[0] != meta["namespace"] or (old and old.view == view):
            return set()
        return {key}

    def _forget_job(self, key: Key) -> set[Key]:
        record = self._records.pop(key)
        self._keys.pop(record.uid, None)
        self._memory.pop(record.uid, None)
        self._outputs.remove(key, record.output)
        return {key} | self._outputs.sharing(record.output)

    def _rivals(self, record: _Record) -> tuple[Rival, ...]:
        others = (self._records[key] for key in self._outputs.sharing(record.output) - {record.key})
        rivals = (Rival(r.key[1], r.created, r.uid, r.active, uri=r.output.partition(" ")[2]) for r in others)
        return tuple(sorted(rivals, key=lambda r: (r.created, r.uid)))

    def _each_child(self) -> Iterable[tuple[str, _Child]]:
        for children in self._children.values():
            yield from children.items()


def _is_kind(child: _Child, kind: Kind) -> bool:
    return isinstance(child.view, JobView) if kind is JOB else isinstance(child.view, PodView) and kind is POD


def _ends(spec: dict[str, Any], status: dict[str, Any]) -> float | None:
    ttl, end = spec.get("ttlSecondsAfterFinished"), seconds(status.get("completionTime"))
    return end + ttl if isinstance(ttl, int) and end is not None else None


def _output(namespace: str, spec: dict[str, Any]) -> str:
    """Where a job writes to, of a spec that may not be readable: namespace, endpoint and the output's URI, without closing slashes.

    Jobs of other namespaces are none of ours to judge, or to name: between those the marker in the storage decides.
    """
    uri = str((spec.get("output") or {}).get("uri") or "").rstrip("/")
    return f"{namespace}/{str((spec.get('storage') or {}).get('endpoint') or '').rstrip('/')} {uri}"
