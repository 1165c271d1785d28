"""What goes wrong for users, side by side: each case has its own reason and hint in the status, and names what to mend."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from support import models

from .cluster import FINISHED, Job, Object, wait
from .conftest import BUCKET, Chart, Place
from .storage import Storage

# Many pods import torch on a few cores at once here; alone, each case is seen within the minute that we promise.
PATIENCE = 420


@dataclasses.dataclass(frozen=True)
class Case:
    """Changes to the tiny job, and what its status must say. `ends`: the job is Failed; otherwise it waits and says why."""

    reason: str
    says: tuple[str, ...]
    changes: dict[str, Any]
    ends: bool = True
    place: str = "cases"


WORKER = {"cpu": "100m", "memory": "100Mi"}
CASES = {
    "wrong-column": Case("InvalidData", ("body",), {"data__columns": {"text": "body", "label": "label"}}),
    "bad-line": Case("InvalidData", ("bad/part-0.jsonl", "37"), {"data__train": {"uri": f"s3://{BUCKET}/bad/*.jsonl"}}),
    "no-objects": Case(
        "DataNotFound", ("nothing-here",), {"data__train": {"uri": f"s3://{BUCKET}/nothing-here/*.jsonl"}}
    ),
    "no-bucket": Case("BucketNotFound", ("no-such-bucket",), {"data__train": {"uri": "s3://no-such-bucket/x/*.jsonl"}}),
    "no-model": Case("ModelNotFound", ("models/none",), {"model__uri": f"s3://{BUCKET}/models/none"}),
    "wrong-keys": Case("AccessDenied", (), {}, place="wrong-keys"),
    "no-secret": Case("SecretNotFound", ("elsewhere",), {"storage__credentialsSecret": "elsewhere"}, ends=False),
    "no-image": Case("ImagePullFailed", ("no-such-image",), {"image": "localhost/no-such-image:1"}, ends=False),
    "too-big": Case(
        "Unschedulable", ("Insufficient cpu",), {"workers__resources": {"requests": {"cpu": "64"}}}, ends=False
    ),
    "out-of-memory": Case(
        "OOMKilled", ("memory",), {"workers__resources": {"requests": WORKER, "limits": {"memory": "160Mi"}}}
    ),
    "over-quota": Case("QuotaExceeded", ("quota",), {}, ends=False, place="quota"),
    "over-scratch": Case("EphemeralStorageExceeded", (), {"workers__scratchSize": "8Ki", "training__epochs": 400}),
}


@dataclasses.dataclass
class Running:
    """All cases under way at once; `seen` holds when each had its reason."""

    jobs: dict[str, Job]
    began: float
    seen: dict[str, tuple[Object, float]] = dataclasses.field(default_factory=dict)


def reason_of(status: Object) -> str | None:
    return (status.get("failure") or {}).get("reason") or status.get("reason")


@pytest.fixture(scope="module")
def running(make_place: Callable[..., Place], chart: Chart, tiny: Storage) -> Running:
    """Start every case, in three namespaces: one plain, one with wrong keys, one with a quota that admits the prepare pod only."""
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
    began = time.monotonic()
    jobs = {name: places[case.place].job(name, **case.changes) for name, case in CASES.items()}
    return Running(jobs, began)


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
    print(
        f"{name}: {case.reason} {time.monotonic() - running.began:.0f} s after the first of {len(CASES)} cases was applied"
    )
    failure = status.get("failure") or {}
    message = f"{status.get('message') or ''} {failure.get('message') or ''}"
    for words in case.says:
        assert words in message, message
    if case.ends:
        assert failure["hint"]
        events = job.cluster.items("events", job.namespace)
        assert any(each["involvedObject"]["name"] == name and each["type"] == "Warning" for each in events), [
            e["reason"] for e in events
        ]


@pytest.mark.parametrize("name", ["wrong-column", "bad-line", "no-objects", "no-bucket", "no-model", "wrong-keys"])
def test_what_fails_the_check_never_asked_for_a_worker(running: Running, name: str) -> None:
    assert running.jobs[name].status["phase"] == "Failed"
    assert running.jobs[name].workers() == []


def test_a_bad_row_is_shown_with_its_file_and_line(running: Running) -> None:
    findings = running.jobs["bad-line"].status["data"]["findings"]
    assert [(each["file"].endswith("bad/part-0.jsonl"), each["line"]) for each in findings] == [(True, 37)]
