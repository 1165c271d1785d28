"""What goes wrong for users, side by side: each case has its own reason and hint in the status, and names what to mend.

Each must be told within a minute of when it could be known: since the apply, since the prepare step passed, or since
the container ended. A thread watches all cases at once, so that the tests, which look one after the other, measure
nothing of each other.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from support import models

from .cluster import FINISHED, Cluster, Job, Object, is_prepare, wait
from .conftest import BUCKET, Chart, Place
from .storage import Storage

PATIENCE = 300
MINUTE = 60.0
Known = Literal["applied", "prepared", "ended"]


@dataclasses.dataclass(frozen=True)
class Case:
    """Changes to the tiny job, and what its status must say. `ends`: the job is Failed; otherwise it waits and says
    why.

    `known` is since when the fault can be known: the apply, the end of the prepare step, or the end of a worker.
    """

    reason: str
    says: tuple[str, ...]
    hint: str
    changes: dict[str, Any]
    ends: bool = True
    place: str = "cases"
    known: Known = "applied"


def _workers(**resources: Any) -> dict[str, Any]:
    return {"workers__resources": resources}


CASES = {
    "wrong-column": Case(
        "InvalidData", ("body", "columns"), "columns", {"data__columns": {"text": "body", "label": "label"}}
    ),
    "bad-line": Case(
        "InvalidData", ("bad/part-0.jsonl", "37"), "maxBadRows", {"data__train": {"uri": f"s3://{BUCKET}/bad/*.jsonl"}}
    ),
    "no-objects": Case(
        "DataNotFound",
        (f"s3://{BUCKET}/nothing-here/*.jsonl",),
        "spec.data",
        {"data__train": {"uri": f"s3://{BUCKET}/nothing-here/*.jsonl"}},
    ),
    "no-bucket": Case(
        "BucketNotFound",
        ("bucket no-such-bucket does not exist",),
        "Create the bucket",
        {"data__train": {"uri": "s3://no-such-bucket/x/*.jsonl"}},
    ),
    "no-model": Case(
        "ModelNotFound", (f"s3://{BUCKET}/models/none",), "spec.model.uri", {"model__uri": f"s3://{BUCKET}/models/none"}
    ),
    "wrong-keys": Case(
        "AccessDenied",
        ("refused the credentials", "SignatureDoesNotMatch"),
        "spec.storage.credentialsSecret",
        {},
        place="wrong-keys",
    ),
    "no-secret": Case(
        "SecretNotFound",
        ('secret "elsewhere" not found',),
        "Create the Secret",
        {"storage__credentialsSecret": "elsewhere"},
        ends=False,
    ),
    "no-image": Case(
        "ImagePullFailed",
        ("localhost/no-such-image:1",),
        "Check spec.image",
        {"image": "localhost/no-such-image:1"},
        ends=False,
    ),
    "too-big": Case(
        "Unschedulable",
        ("0/", "nodes are available", "Insufficient cpu"),
        "spec.workers.resources",
        _workers(requests={"cpu": "64"}),
        ends=False,
        known="prepared",
    ),
    "out-of-memory": Case(
        "OOMKilled",
        ("worker 0", "more memory than its limit"),
        "spec.workers.resources.limits.memory",
        _workers(requests={"cpu": "100m", "memory": "100Mi"}, limits={"memory": "160Mi"}),
        known="ended",
    ),
    "over-quota": Case(
        "QuotaExceeded",
        ("exceeded quota: small", "requests.cpu=250m"),
        "raise the quota",
        {},
        ends=False,
        place="quota",
        known="prepared",
    ),
    "over-scratch": Case(
        "EphemeralStorageExceeded",
        ("worker 0", "exceeds the limit", "64Ki"),
        "spec.workers.scratchSize",
        {"workers__scratchSize": "64Ki", "training__epochs": 1000},  # less than the model, more than the tokenizer
        known="ended",
    ),
}


@dataclasses.dataclass
class Running:
    """All cases under way at once; `seen` has by (namespace, job, reason) when the status first gave that reason."""

    cluster: Cluster
    jobs: dict[str, Job]
    applied: dict[str, float] = dataclasses.field(default_factory=dict)
    seen: dict[tuple[str, str, str], float] = dataclasses.field(default_factory=dict)
    over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.over.wait(0.5):
            try:
                objects = self.cluster.items("finetunejobs")
            except AssertionError:
                continue
            for each in objects:
                where, reason = each["metadata"], reason_of(each.get("status") or {})
                if reason:
                    self.seen.setdefault((where["namespace"], where["name"], reason), time.time())

    def known(self, name: str) -> float:
        """When the fault of this case could be known."""
        if CASES[name].known == "applied":
            return self.applied[name]
        pods = [pod for pod in self.jobs[name].pods() if is_prepare(pod) == (CASES[name].known == "prepared")]
        assert pods, "no pod is left to tell since when the fault could be known"
        return max(map(ended, pods))


def ended(pod: Object) -> float:
    """When this pod's container ended, or the kubelet decided to end it: an evicted one may be told of before it has
    ended.
    """
    states = [each["state"].get("terminated") or {} for each in pod["status"].get("containerStatuses") or []]
    stamps = [state["finishedAt"] for state in states if state.get("finishedAt")]
    stamps = stamps or [each["lastTransitionTime"] for each in pod["status"]["conditions"]]
    return max(datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() for stamp in stamps)


def reason_of(status: Object) -> str | None:
    return (status.get("failure") or {}).get("reason") or status.get("reason")


@pytest.fixture(scope="module")
def running(make_place: Callable[..., Place], chart: Chart, tiny: Storage) -> Iterator[Running]:
    """Start every case, in three namespaces: one plain, one with wrong keys, one with a quota that admits the prepare
    pod only.
    """
    rows = [json.dumps(row) for row in models.mails(60, seed=5)]
    rows[36] = '{"text": "half a line'
    tiny.put(BUCKET, "bad/part-0.jsonl", "\n".join(rows).encode())
    places = {
        "cases": make_place("failures"),
        "wrong-keys": make_place("wrong-keys", secret="not-the-secret-key"),
        "quota": make_place("quota"),
    }
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"requests.cpu": "200m"}},
    }
    places["quota"].cluster.apply(quota, namespace=places["quota"].name)
    found = Running(chart.cluster, {})
    watcher = threading.Thread(target=found.watch, daemon=True)
    watcher.start()
    for name, case in CASES.items():
        found.jobs[name] = places[case.place].job(name, **case.changes)
        found.applied[name] = time.time()
    yield found
    found.over.set()
    watcher.join(30)


@pytest.mark.parametrize("name", CASES)
def test_the_status_says_what_is_wrong_and_what_to_do(running: Running, name: str) -> None:
    case, job = CASES[name], running.jobs[name]

    def look() -> Object | None:
        status = job.status
        if reason_of(status) == case.reason and (not case.ends or status.get("phase") == "Failed"):
            return status
        assert status.get("phase") not in FINISHED, f"{status.get('phase')}: {json.dumps(status.get('failure'))}"
        return None

    try:
        status = wait(f"{name}: reason {case.reason}", look, PATIENCE)
    except AssertionError:
        print(job.explain())
        raise
    failure = status.get("failure") or {}
    message = failure["message"] if case.ends else status["message"]
    for words in case.says:
        assert words in message, message
    assert case.hint in (failure["hint"] if case.ends else message), failure or message
    if case.ends:
        events = job.cluster.items("events", job.namespace)
        assert any(each["involvedObject"]["name"] == name and each["type"] == "Warning" for each in events), [
            e["reason"] for e in events
        ]
    told = wait("the watcher", lambda: running.seen.get((job.namespace, name, case.reason)), 30)
    seconds = told - running.known(name)
    print(f"{name}: {case.reason} in status {seconds:.1f} s after it could be known ({case.known}): {message}")
    assert seconds <= MINUTE


@pytest.mark.parametrize("name", ["wrong-column", "bad-line", "no-objects", "no-bucket", "no-model", "wrong-keys"])
def test_what_fails_the_check_never_asked_for_a_worker(running: Running, name: str) -> None:
    assert running.jobs[name].status["phase"] == "Failed"
    assert running.jobs[name].workers() == []


def test_a_bad_row_is_shown_with_its_file_and_line(running: Running) -> None:
    findings = running.jobs["bad-line"].status["data"]["findings"]
    assert [(each["file"].endswith("bad/part-0.jsonl"), each["line"]) for each in findings] == [(True, 37)]
