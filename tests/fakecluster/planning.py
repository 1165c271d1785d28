"""A small cluster in memory for tests of planning: it applies plans in the operator's order, and reports as a
trainer does.

Objects are kept as the API server would send them, so that the projections are tested on the way. Nothing happens by
itself: a test says what the kubelet does (see controllers.py), and time moves by `wait`.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Container
from typing import Any

from fakecluster.controllers import Controllers, condition
from finetune_api import API_VERSION, KIND
from finetune_api.report import Report, Stage
from finetune_api.status import Checkpoint, Progress, Status
from finetune_api.times import rfc3339
from finetune_operator.job.decide import plan
from finetune_operator.job.observed import Observed, PlanSettings, Refusal, Resource, Rival
from finetune_operator.plan import names
from finetune_operator.plan.plan import Plan
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView

START = 1_800_000_000.0
SETTINGS = PlanSettings(
    trainer_image="registry.test/trainer:1", report_url="https://reports.finetune-system.svc:8443", report_ca="PEM"
)
SPEC: dict[str, Any] = {
    "task": "text-classification",
    "model": {"uri": "s3://models/minilm"},
    "data": {"train": {"uri": "s3://mail/train/*.jsonl.zst"}, "validation": {"fraction": 0.1}},
    "output": {"uri": "s3://models/spam-filter"},
    "workers": {"replicas": 2},
    "storage": {"endpoint": "http://s3.test:9000", "credentialsSecret": "s3"},
}
EVERYTHING: dict[str, Any] = {
    "prepare": {
        "resources": {"requests": {"cpu": "500m"}},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "cpu", "operator": "Exists"}],
    },
    "workers": {
        "replicas": 3,
        "processesPerWorker": 2,
        "sharedMemorySize": "2Gi",
        "scratchSize": "20Gi",
        "terminationGracePeriodSeconds": 300,
        "resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": 2}},
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 5,
                        "podAffinityTerm": {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"},
                    }
                ]
            }
        },
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "schedulerName": "volcano",
        "imagePullSecrets": [{"name": "mine"}],
        "serviceAccountName": "trainer",
        "labels": {"team": "nlp"},
        "annotations": {"note": "x"},
        "env": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "KEY", "secretKeyRef": {"name": "k", "key": "v"}},
            {"name": "MODE", "configMapKeyRef": {"name": "c", "key": "m"}},
            {"name": "HF_HOME", "value": "/tmp/mine"},
        ],
    },
    "storage": {
        "endpoint": "https://s3.test",
        "region": "eu",
        "pathStyle": False,
        "credentialsSecret": "s3",
        "ca": {"secret": "ca", "key": "root.pem"},
    },
    "hub": {"endpoint": "https://mirror.test", "tokenSecret": {"name": "hub"}},
    "image": "my/trainer:2",
    "imagePullPolicy": "Always",
}
"""Every field that a user may set on pods."""


class Everything(Container[str]):
    """Holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


class Crash(Exception):
    """The operator dies here."""


class Cluster(Controllers):
    """One FineTuneJob and its children."""

    def __init__(
        self, spec: dict[str, Any] | None = None, *, name: str = "spam-filter", labels: dict[str, str] | None = None
    ) -> None:
        super().__init__(START)
        self.uid = "0a1b2c3d-1111-4222-8333-444455556666"
        self.settings = SETTINGS
        self.job: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": self.uid,
                "generation": 1,
                "creationTimestamp": rfc3339(START),
                "labels": labels or {},
            },
            "spec": {**copy.deepcopy(SPEC), **(spec or {})},
            "status": {},
        }
        self.report: Report | None = None
        self.report_component = names.WORKER
        self.received: float | None = None
        self.listening_since = 0.0
        self.events: dict[str, tuple[EventView, ...]] = {}
        self.looked_up: Container[str] = Everything()  # nothing is ever late here, unless a test says so
        self.rivals: tuple[Rival, ...] = ()
        self.conflicts: tuple[str, ...] = ()
        self.refusals: tuple[Refusal, ...] = ()
        self.refuse: dict[str, tuple[int, str]] = {}
        self.notes: list[str] = []
        self.writes = 0
        self.crash_at: int | None = None
        self.created: list[tuple[str, str]] = []
        self.deleted: list[tuple[str, str]] = []
        self.gone = False
        self.last: Plan | None = None
        self._sequence = itertools.count()

    # ------------------------------------------------------------ operator

    @property
    def status(self) -> Status:
        return Resource.from_object(self.job).status

    @property
    def phase(self) -> str | None:
        return self.status.phase

    def observed(self) -> Observed:
        jobs = [JobView.from_object(o) for (kind, _), o in self.objects.items() if kind == "Job"]
        pods = [PodView.from_object(p) for p in self.pods.values()]
        return Observed(
            job=Resource.from_object(self.job),
            settings=self.settings,
            now=self.now,
            jobs=tuple(j for j in jobs if j),
            pods=tuple(p for p in pods if p),
            report=self.report,
            report_component=self.report_component,
            report_received=self.received,
            listening_since=self.listening_since,
            conflicts=self.conflicts,
            refusals=self.refusals,
            events=self.events,
            rivals=self.rivals,
            looked_up=self.looked_up,
        )

    def reconcile(self, times: int = 3) -> Plan:
        """Plan and apply until nothing changes, at most `times`. Returns the last plan."""
        for _ in range(times):
            made = plan(self.observed())
            before = (copy.deepcopy(self.job["status"]), dict.fromkeys(self.objects), dict.fromkeys(self.pods))
            self.apply(made)
            if before == (self.job["status"], dict.fromkeys(self.objects), dict.fromkeys(self.pods)):
                break
        self.last = made
        return made

    def apply(self, made: Plan) -> None:
        if made.delete_self:
            self._write()
            self.gone = True
            return
        for note in made.notes:
            self.notes.append(note.reason)
        self.conflicts, self.refusals = (), ()
        for create in made.create:
            self._write()
            if not self._create(copy.deepcopy(dict(create.object))):
                break
        for patch in made.patch:
            self._write()
            _merge(self.objects[patch.kind, patch.name], patch.body)
        status = made.status.to_json()
        Status.model_validate_json(made.status.model_dump_json(by_alias=True, exclude_none=True))
        if made.status != self.status:
            self._write()
            self.job["status"] = status
        for delete in made.delete:
            self._write()
            found = self.objects.get((delete.kind, delete.name))
            if found is not None and (delete.uid is None or found["metadata"]["uid"] == delete.uid):
                self._delete(delete.kind, delete.name)

    def _write(self) -> None:
        """Count a write to the API server; the operator may die before it."""
        if self.crash_at is not None and self.writes >= self.crash_at:
            raise Crash
        self.writes += 1

    def _create(self, obj: dict[str, Any]) -> bool:
        kind, name = obj["kind"], obj["metadata"]["name"]
        if kind in self.refuse:
            code, message = self.refuse[kind]
            self.refusals = (Refusal(kind, name, code, message),)
            return False
        old = self.objects.get((kind, name))
        if old is not None:
            owners = old["metadata"].get("ownerReferences") or ()
            if not any(o["uid"] == self.uid for o in owners):
                self.conflicts = (f"{kind} {name} exists and is not controlled by this job",)
                return False
            return True
        obj["metadata"]["uid"] = str(uuid.uuid4())
        obj["metadata"]["creationTimestamp"] = rfc3339(self.now)
        obj.setdefault("status", {})
        self.objects[kind, name] = obj
        self.created.append((kind, name))
        return True

    def _delete(self, kind: str, name: str) -> None:
        found = self.objects.pop((kind, name))
        self.deleted.append((kind, name))
        if kind == "Job":  # background propagation
            for pod in self.pods_of(found):
                self.terminate(pod)

    # ------------------------------------------------------------ trainer

    def say(
        self,
        step: int | None = None,
        *,
        total: int = 100,
        stage: Stage = Stage.TRAINING,
        component: str = names.WORKER,
        **fields: Any,
    ) -> None:
        """A report of the current attempt."""
        attempt = max(int(j["metadata"]["labels"][names.ATTEMPT]) for j in self.jobs(component))
        progress = (
            Progress(step=step, total_steps=total, percent=100.0 * step / total, loss=0.5) if step is not None else None
        )
        self.report = Report(
            job_id=self.uid,
            attempt=attempt,
            sequence=next(self._sequence),
            time=self.now,
            stage=stage,
            progress=progress,
            **fields,
        )
        self.report_component, self.received = component, self.now

    def checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(
            step=step, uri=f"s3://models/spam-filter/ckpt/1/{step}", bytes=1, digest="d", time=rfc3339(self.now)
        )

    # ------------------------------------------------------------ walks

    def wait(self, seconds: float = 1.0) -> None:
        self.now += seconds

    def check(self) -> Any:
        """From nothing to a prepare pod that runs: that pod."""
        self.reconcile()
        self.control()
        pod = self.pod(0, names.PREPARE)
        self.start(pod)
        self.reconcile()
        return pod

    def prepare(self) -> None:
        """From nothing to the first attempt's Job."""
        pod = self.check()
        self.wait(5)
        self.exit(pod, 0)
        self.control()
        self.reconcile()

    def train(self, step: int | None = 10, **fields: Any) -> None:
        """The current attempt's pods run and report."""
        self.control()
        self.wait(1)
        for job in self.jobs(names.WORKER):
            if not condition(job, "Failed"):
                self.start(*(p for p in self.pods_of(job) if p["status"]["phase"] == "Pending"))
        self.reconcile()
        if step is not None:
            self.say(step, **fields)
            self.reconcile()

    def finish(self) -> None:
        """All workers exit 0."""
        self.wait(5)
        for pod in self.pods.values():
            if pod["status"].get("phase") == "Running":
                self.exit(pod, 0)
        self.control()
        self.reconcile()


def _merge(target: dict[str, Any], body: Any) -> None:
    for key, value in body.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value
