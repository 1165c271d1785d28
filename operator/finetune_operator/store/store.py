"""What the operator knows of the cluster: small projections, never raw bodies.

Watch events, relists and the answers to our own writes all come in by `put`; an older version of an object never
replaces a newer one, nor brings back what was deleted after it. An object that cannot be read is left out, and nothing
else with it. `snapshot` gives planning everything about one job. A watch that lost its place never reports what was
deleted meanwhile, so a relist removes what it did not find (ghosts). A job's spec and status are kept packed: a
thousand parsed histories would fill the memory.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from finetune_api import KIND
from finetune_operator.job.attempt.attempt import KEEP
from finetune_operator.job.children.objects import idle_services
from finetune_operator.job.observed import Observed, PlanSettings, Resource, Rival, StoredSpec
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD, SERVICE, Kind
from finetune_operator.plan import names
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView
from finetune_operator.store.children import Child, Children, Graves
from finetune_operator.store.key import Key
from finetune_operator.store.memory import Memory
from finetune_operator.store.output_index import OutputIndex
from finetune_operator.store.recent import Recent
from finetune_operator.store.record import JobRecord
from finetune_operator.store.services import Services

log = logging.getLogger(__name__)

SPECS, RESOURCES = 2048, 64
"""So many specs, and whole jobs, are kept parsed; a status with its history takes a hundred times its packed size."""
COMPLAINTS = 1024
"""Of so many objects that cannot be read it is remembered that the log has said so."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was known of an attempt before it was looked up."""

    name: str
    job: JobView | None
    pods: frozenset[str]  # UIDs


class Store:
    """Only touched from the event loop; every method is synchronous, so each sees a consistent whole.

    `malformed` is called with the kind of each object that cannot be read.
    """

    def __init__(self, malformed: Callable[[str], None] = lambda kind: None) -> None:
        self._records: dict[Key, JobRecord] = {}
        self._keys: dict[str, Key] = {}
        self._families: dict[names.Family, set[Key]] = defaultdict(set)
        self._children = Children()
        self._graves = Graves()
        self._services = Services()
        self._outputs: OutputIndex[Key] = OutputIndex()  # of those at work
        self._memory: dict[str, Memory] = {}
        self._specs: Recent[tuple[str, int], StoredSpec] = Recent(SPECS)
        self._resources: Recent[tuple[str, int], Resource] = Recent(RESOURCES)
        self._malformed, self._complained = malformed, OrderedDict[str, None]()
        self._listening_since = 0.0

    # ------------------------------------------------------------ what comes in

    def put(self, kind: Kind, obj: Any) -> set[Key]:
        """Take an object in. Returns the keys to reconcile: empty when nothing that matters has changed.

        What users write into an object must not keep others from being read (I10): nothing is raised.
        """
        try:
            meta = obj["metadata"]
            if self._graves.hold(meta["uid"], int(meta["resourceVersion"])):
                return set()
            if kind is SERVICE:
                self._services.put(obj)  # made by us alone: what it means for its job is seen when that ends
                return set()
            return self._put_job(obj) if kind is FINETUNE_JOB else self._put_child(kind, obj)
        except Exception as error:  # whatever it is, it is this object's
            self._complain(kind, obj, error)
            return set()

    def drop(self, kind: Kind, uid: str, version: int = 0) -> set[Key]:
        """The object of this UID is gone: at that `version`, where one is known. Returns the keys to reconcile."""
        if version:
            self._graves.bury(uid, version)
        if kind is SERVICE:
            self._services.pop(uid)
            return set()
        if kind is FINETUNE_JOB:
            key = self._keys.get(uid)
            return self._forget_job(key) if key else set()
        child = self._children.get(uid)
        if child is None:
            return set()
        keys = self._parents(child)
        self._children.pop(uid)
        if isinstance(child.view, JobView):
            for key in keys:  # its pods may outlive it, and still report
                self.memory(self._records[key].uid).child_deleted(uid, child.view.name)
        return keys

    def gone(self, kind: Kind, obj: Any) -> set[Key]:
        """The watch says that this object was deleted. Returns the keys to reconcile."""
        try:
            return self.drop(kind, str(obj["metadata"]["uid"]), int(obj["metadata"]["resourceVersion"]))
        except Exception as error:
            self._complain(kind, obj, error)
            return set()

    def listen(self, now: float) -> None:
        """Reports are taken from now on; only the first call counts."""
        self._listening_since = self._listening_since or now

    def begin_relist(self, kind: Kind) -> frozenset[str]:
        """Before a LIST of `kind` is sent: the UIDs known now."""
        if kind is SERVICE:
            return self._services.uids()
        if kind is FINETUNE_JOB:
            return frozenset(self._keys)
        return frozenset(self._children.uids(JobView if kind is JOB else PodView))

    def end_relist(self, kind: Kind, before: frozenset[str], seen: set[str], hidden: Container[str] = ()) -> set[Key]:
        """After the LIST: whatever was known before and was not seen is a ghost, and goes. Returns the keys to
        reconcile.

        What lies in a namespace that is `hidden` could not be seen, which says nothing.
        """
        changed: set[Key] = set()
        for uid in before - seen:
            if self._namespace(uid) not in hidden:
                changed |= self.drop(kind, uid)
        return changed

    def begin_lookup(self, uid: str, name: str) -> Lookup:
        """Before the Job of that name is fetched, if it is not known, and its pods are listed."""
        record = self._records[self._keys[uid]]
        pods = self._children.pods(record.family, uid, self.memory(uid).deleted_jobs, record.attempt)
        return Lookup(name, self._job(record, name), frozenset(p.uid for p in pods if p.owner_job == name))

    def end_lookup(self, uid: str, lookup: Lookup, seen: set[str]) -> None:
        """After it: pods that were known before and were not listed are gone."""
        for pod in lookup.pods - seen:
            self.drop(POD, pod)
        self.memory(uid).pods_listed(lookup.name, lookup.job)

    # ------------------------------------------------------------ what goes out

    def snapshot(self, key: Key, settings: PlanSettings, now: float) -> Observed | None:
        """Everything known of a job; None if there is no such job."""
        record = self._records.get(key)
        if record is None:
            return None
        memory = self.memory(record.uid)
        received = memory.report
        return Observed(
            job=self._resources.get((record.uid, record.version), lambda: self._unpack(record)),
            jobs=tuple(sorted(self._children.jobs(record.family, record.uid), key=lambda v: v.name)),
            pods=tuple(sorted(self._pods(record), key=lambda v: (v.name, v.uid))),
            report=received.unpack() if received else None,
            report_component=received.component if received else names.WORKER,
            report_received=received.time if received else None,
            listening_since=self._listening_since,
            conflicts=memory.conflicts,
            refusals=memory.refusals,
            events=dict(memory.events),
            rivals=self._rivals(record),
            looked_up=frozenset(name for name, job in memory.looked_up.items() if job == self._job(record, name)),
            services=self._services.of(record.key.namespace, record.uid),
            settings=settings,
            now=now,
        )

    def memory(self, uid: str) -> Memory:
        """The job's memory; an empty one, kept only for jobs that exist."""
        if uid in self._keys:
            return self._memory.setdefault(uid, Memory())
        return Memory()

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
        key, child = self._keys.get(job_uid), self._children.get(pod_uid)
        ours = key is not None and child is not None and key in self._parents(child)
        return child.view if ours and child and isinstance(child.view, PodView) else None

    def newest(self, job_uid: str) -> tuple[bool, int]:
        """Whether workers have been made, and the number of the newest attempt, of them or of the prepare step."""
        key = self._keys.get(job_uid)
        jobs = self._children.jobs(self._records[key].family, job_uid) if key else []
        return max(((v.component == names.WORKER, v.attempt) for v in jobs), default=(False, 0))

    def keys(self) -> list[Key]:
        return list(self._records)

    def due(self, key: Key) -> float | None:
        """When the job needs work, in seconds since the epoch: 0 for now, None where nothing is left to do for it.

        A finished job needs none but to be cleaned up after, and to be deleted when its time to live is over.
        """
        record = self._records.get(key)
        if record is None or (record.deleting and record.ended):
            return None
        if not record.rests or self._untidy(record):
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
        return len(self._records), len(self._children)

    # ------------------------------------------------------------ inside

    def _unpack(self, record: JobRecord) -> Resource:
        body = json.loads(zlib.decompress(record.packed))
        spec = self._specs.get((record.uid, record.trigger), lambda: StoredSpec.read(body["spec"]))
        return Resource.from_object(body, spec)

    def _namespace(self, uid: str) -> str:
        """Where the object of this UID lies; empty if it is not known."""
        child, service, key = self._children.get(uid), self._services.get(uid), self._keys.get(uid)
        return child.family[0] if child else service.namespace if service else key.namespace if key else ""

    def _untidy(self, record: JobRecord) -> bool:
        """Whether a finished job has children that the policy of cleaning up does not keep."""
        jobs = [v for v in self._children.jobs(record.family, record.uid) if not v.deleting]
        newest = {v.component: max(w.attempt for w in jobs if w.component == v.component) for v in jobs}
        if any(not v.terminal or v.attempt <= newest[v.component] - KEEP for v in jobs):
            return True
        return bool(idle_services(self._services.of(record.key.namespace, record.uid), jobs))

    def _pods(self, record: JobRecord) -> list[PodView]:
        return self._children.pods(record.family, record.uid, self.memory(record.uid).deleted_jobs, record.attempt)

    def _job(self, record: JobRecord, name: str) -> JobView | None:
        return next((job for job in self._children.jobs(record.family, record.uid) if job.name == name), None)

    def _parents(self, child: Child) -> set[Key]:
        """The FineTuneJob whose child this is: one, or none."""
        return {key for key in self._families.get(child.family, ()) if self._is_child(child, self._records[key])}

    def _is_child(self, child: Child, record: JobRecord) -> bool:
        view = child.view
        if isinstance(view, JobView):
            return view.owner_uid == record.uid
        gone = self.memory(record.uid).deleted_jobs
        return self._children.ours(view, record.family, record.uid, gone, record.attempt)

    def _complain(self, kind: Kind, obj: Any, error: Exception) -> None:
        """Count an object that cannot be read, and log it once."""
        self._malformed(kind.kind)
        meta = obj.get("metadata") if isinstance(obj, dict) else None
        whose = [str(meta.get(name))[:253] for name in ("namespace", "name", "uid")] if isinstance(meta, dict) else []
        about = f"{kind.kind} {'/'.join(whose)}"
        if about in self._complained:
            return
        self._complained[about] = None
        while len(self._complained) > COMPLAINTS:
            self._complained.popitem(last=False)
        log.error("%s cannot be read and is left out: %s: %s", about, type(error).__name__, str(error)[:500])

    def _put_job(self, obj: dict[str, Any]) -> set[Key]:
        meta = obj["metadata"]
        key, uid, version = Key.of(KIND, meta), meta["uid"], int(meta["resourceVersion"])
        old = self._records.get(key)
        if old and old.version >= version:  # also of another UID: an answer about the job that had this name before
            return set()
        changed: set[Key] = set()
        if old and old.uid != uid:
            changed |= self._forget_job(key)
            old = None
        record = JobRecord.of(obj)
        self._records[key], self._keys[uid] = record, key
        self._families[record.family].add(key)
        if old is None or old.trigger != record.trigger:
            changed.add(key)
        return changed | self._move(key, old.place if old else None, record.place)

    def _put_child(self, kind: Kind, obj: dict[str, Any]) -> set[Key]:
        meta = obj["metadata"]
        uid, version = meta["uid"], int(meta["resourceVersion"])
        old = self._children.get(uid)
        if old and old.version >= version:
            return set()
        view = JobView.from_object(obj) if kind is JOB else PodView.from_object(obj)
        if view is None:  # none of ours, or not any more: it was orphaned
            return self.drop(kind, uid) if old else set()
        child = Child((meta["namespace"], view.stem), version, view)
        self._children.put(uid, child)
        return set() if old and old.view == view else self._parents(child)

    def _forget_job(self, key: Key) -> set[Key]:
        record = self._records.pop(key)
        self._keys.pop(record.uid, None)
        self._families[record.family].discard(key)
        if not self._families[record.family]:
            del self._families[record.family]
        self._memory.pop(record.uid, None)
        return {key} | self._move(key, record.place, None)

    def _move(self, key: Key, old: str | None, new: str | None) -> set[Key]:
        """The job writes to another place now, or to none: only those at work have one.

        Returns whose rivals have changed.
        """
        if old == new:
            return set()
        changed: set[Key] = set()
        if old is not None:
            self._outputs.remove(key, old)
            changed |= self._outputs.sharing(old)
        if new is not None:
            changed |= self._outputs.sharing(new)
            self._outputs.add(key, new)
        return changed - {key}

    def _rivals(self, record: JobRecord) -> tuple[Rival, ...]:
        others = (self._records[key] for key in self._outputs.sharing(record.output) - {record.key})
        rivals = (Rival(r.key.name, r.created, r.uid, r.active, uri=r.output.partition(" ")[2]) for r in others)
        return tuple(sorted(rivals, key=lambda r: (r.created, r.uid)))


def uid_of(obj: Any) -> str:
    """The UID of a listed object; empty where it has none."""
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    return str(meta.get("uid") or "") if isinstance(meta, dict) else ""
