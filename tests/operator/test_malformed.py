"""No value that a user or a pod writes ends or stalls the operator: what cannot be read is left out, and the rest goes
on.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from fakecluster.api import FakeApi
from fakecluster.desk import Desk
from fakecluster.driver import KEY, NAMESPACE, Driver, child, job
from fakecluster.node import COMPONENT, Ending, Node, success
from finetune_api.report import Report
from finetune_api.status import Checkpoint, Progress, Status
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient, _answer
from finetune_operator.kube.errors import Unavailable
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD, Kind
from finetune_operator.metrics import Metrics
from finetune_operator.plan import names
from finetune_operator.store.memory import Received
from finetune_operator.store.store import Store
from finetune_operator.wiring import taker

DIGITS = "9" * 5000
META = {"name": "bad", "namespace": NAMESPACE, "uid": "bad", "resourceVersion": "9"}
OWNED = META | {"ownerReferences": [{"controller": True, "kind": "Job", "name": "ft-a-00000000-1", "uid": "j"}]}
UNREADABLE: list[tuple[Kind, Any]] = [
    (POD, None),
    (POD, []),
    (POD, {"metadata": None}),
    (POD, {"metadata": {"uid": "u"}}),
    (POD, {"metadata": META | {"resourceVersion": DIGITS}}),
    (POD, {"metadata": META | {"resourceVersion": "x"}}),
    (POD, {"metadata": OWNED | {"ownerReferences": "x"}}),
    (POD, {"metadata": OWNED, "status": {"conditions": [{"status": "True"}]}}),
    (POD, {"metadata": OWNED, "status": {"containerStatuses": [1]}}),
    (POD, {"metadata": OWNED | {"annotations": "x"}}),
    (JOB, {"metadata": META | {"name": 7}}),
    (FINETUNE_JOB, {"metadata": META, "spec": "x"}),
    (FINETUNE_JOB, {"metadata": META, "spec": {"output": [1]}}),
    (FINETUNE_JOB, {"metadata": META | {"generation": DIGITS}}),
]


@pytest.mark.parametrize(("kind", "obj"), UNREADABLE)
def test_an_object_that_cannot_be_read_is_counted_and_logged_once(
    kind: Kind, obj: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    store = Store(metrics.malformed)
    for _ in range(3):
        assert store.put(kind, obj) == set()
    assert store.gone(kind, None) == set()
    counted = metrics.registry.get_sample_value("finetune_operator_malformed_objects_total", {"kind": kind.kind})
    assert counted == 4 or (counted == 1 and "annotations" in str(obj))  # an annotation that is none may be passed over
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) <= 2
    assert max((len(r.getMessage()) for r in caplog.records), default=0) < 2000


async def test_an_object_that_cannot_be_read_keeps_no_other_from_being_listed_or_watched(api: FakeApi) -> None:
    driver = Driver(api)
    take = taker(driver.store, driver.queue, driver.relister, driver.metrics)
    labels = names.labels("x", "x", names.WORKER, 1)
    for plural, key in (("jobs", names.RESTARTS_USED), ("pods", names.INDEX)):
        meta = {
            "name": "bad",
            "labels": labels,
            "annotations": {key: DIGITS},
            "ownerReferences": [{"uid": "x", "controller": 1}],
        }
        bad = api.objects.create(
            plural, "attacker", {"metadata": meta, "spec": {"suspend": True}, "status": {"phase": 7}}
        )
        take(POD if plural == "pods" else JOB, {"type": "ADDED", "object": bad})
    api.objects.create("finetunejobs", "attacker", {"metadata": {"name": "a"}, "spec": {"storage": 1, "output": 2}})
    api.objects.create("finetunejobs", NAMESPACE, job())
    await driver.relister.once()
    await driver.relister.once()
    assert driver.store.uid(KEY)
    await driver.settle()
    assert driver.status()["phase"] == "Succeeded"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"a":' + DIGITS.encode() + b"}"])
def test_an_answer_that_cannot_be_read_is_no_answer(body: bytes) -> None:
    with pytest.raises(Unavailable):
        _answer(body, "GET /x")


async def test_a_list_without_items_is_not_taken_for_an_empty_one(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeApi, "_list", lambda self, call: {"kind": "Status"})
    kube = KubeClient(Access(api.url))
    try:
        with pytest.raises(Unavailable):
            _ = [o async for o in kube.list(POD)]
    finally:
        await kube.close()


JUNK: dict[str, dict[str, Any]] = {
    "a moment of a checkpoint": {
        "checkpoints": [{"step": 1, "uri": "s3://x", "bytes": 1, "digest": "d", "time": "yesterday"}]
    },
    "a moment without a zone": {
        "checkpoints": [{"step": 1, "uri": "s3://x", "bytes": 1, "digest": "d", "time": "2026-01-01T00:00:00"}]
    },
    "a step beyond 64 bits": {"progress": {"step": 10**30}},
    "a step of 4000 digits": {"progress": {"step": 10**4000}},
    "a number that is none": {"progress": {"loss": float("nan")}},
    "seconds that are infinite": {"seconds": {"train": float("inf")}},
    "nested deep": {"seconds": json.loads("[" * 500 + "]" * 500)},
}


@pytest.mark.parametrize("name", JUNK)
async def test_a_report_with_junk_is_refused_by_its_field(desk: Desk, name: str) -> None:
    report = Report(job_id="11111111-u", attempt=1, sequence=1, time=1, stage="training")  # type: ignore[arg-type]
    body = json.dumps(report.to_json() | JUNK[name]).encode()
    assert await desk.send(body=body) == (400, "malformed")
    assert desk.taken() is None


EXTREME: dict[str, dict[str, Any]] = {
    "an ending in ages": {"progress": Progress(step=1, total_steps=10, eta_seconds=1e308)},
    "seconds beyond all sums": {"progress": Progress(step=1), "seconds": {"train": 1.7e308, "load": 1.7e308}},
    "seconds below nothing": {"progress": Progress(step=1), "seconds": {"train": -5.0, "load": 1.0}},
    "the largest step": {"progress": Progress(step=2**63 - 1, total_steps=2**63 - 1)},
    "the largest loss": {"progress": Progress(step=1, loss=1.7e308, learning_rate=-1.7e308)},
    "the oldest checkpoint": {
        "checkpoints": (Checkpoint(step=1, uri="s3://x", bytes=1, digest="d", time="0001-01-01T00:00:00+14:00"),)
    },
}


@pytest.mark.parametrize("name", EXTREME)
async def test_extreme_values_of_a_report_reach_the_status_and_stop_nothing(api: FakeApi, name: str) -> None:
    node = Node(api.objects)
    node.end = lambda pod: None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
    driver = Driver(api, node)
    api.objects.create("finetunejobs", NAMESPACE, job())
    for _ in range(8):
        await driver.round()
        node.tick()
    worker, _ = [p for p in api.objects.list("pods") if p["metadata"]["labels"][COMPONENT] == "worker"]
    uid = driver.store.uid(KEY)
    assert uid
    pod = driver.store.pod(uid, worker["metadata"]["uid"])
    assert pod
    report = Report(job_id=uid, attempt=1, sequence=1, time=1, stage="training", **EXTREME[name])  # type: ignore[arg-type]
    driver.store.memory(uid).report_received(Received.of(report, pod, driver.now))
    await driver.round()
    status = driver.status()
    Status.model_validate_json(json.dumps(status), by_name=False)
    assert status["lastReportTime"]
    driver.metrics.observe(KEY, Status.model_validate_json(json.dumps(status)), driver.now)
    await driver.close()


@pytest.mark.parametrize(
    "message",
    ['{"a":' + "[" * 4000, '{"version": ' + "9" * 4050, '{"seconds": {"train": 1e999}}', "{}", '{"jobId": {}}'],
    ids=["nested deep", "digits", "infinite", "empty", "wrong"],
)
async def test_a_last_word_that_cannot_be_read_says_nothing(api: FakeApi, message: str) -> None:
    node = Node(api.objects)
    node.end = lambda pod: (
        Ending(29, "Error", message[:4096]) if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
    )
    driver = Driver(api, node)
    api.objects.create("finetunejobs", NAMESPACE, job())
    await driver.settle()
    assert driver.status()["failure"]["reason"] == "NothingToLearn"
    await driver.close()


def test_a_child_whose_numbers_are_junk_still_counts(api: FakeApi) -> None:
    store = Store()
    meta = {"name": "spam-filter", "namespace": NAMESPACE, "uid": "11111111-u", "resourceVersion": "1"}
    store.put(FINETUNE_JOB, job() | {"metadata": meta})
    made = child("Job", "", "11111111-u", uid="j1", version=2)
    made["metadata"]["annotations"] = {names.RESTARTS_USED: DIGITS}
    assert store.put(JOB, made)
    pod = child("Pod", "p", "11111111-u", uid="p1", version=3, controller="j1")
    pod["metadata"]["annotations"] = {names.INDEX: DIGITS}
    assert store.put(POD, pod)
    assert store.pod("11111111-u", "p1") is not None
