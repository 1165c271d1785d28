"""No field of the status is lost on its way through the API server, and no default is put into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.base import parse_stored
from finetune_api.crd import structural
from finetune_api.status import Status
from support import judges
from support.control_plane import ControlPlane
from support.filled import filled

pytestmark = pytest.mark.apiserver
APPLY = "?fieldManager=finetune-operator&force=true&fieldValidation=Strict"


@pytest.fixture
def job(judge: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")[:60].rstrip("-")
    manifest = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "task": "causal-lm",
            "model": {"uri": "s3://m/a"},
            "data": {"train": {"uri": "s3://d/a"}},
            "output": {"uri": "s3://o/a"},
        },
    }
    assert judges.server(judge, manifest, dry_run=False)[0] == []
    yield f"{judges.JOBS}/{name}"
    judge.request("DELETE", f"{judges.JOBS}/{name}")


def apply(judge: ControlPlane, path: str, status: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    body = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": path.rpartition("/")[2]},
        "status": status,
    }
    return judge.request("PATCH", f"{path}/status{APPLY}", body, "application/apply-patch+yaml")


def test_a_full_status_comes_back_whole(judge: ControlPlane, job: str) -> None:
    status = json.loads(json.dumps(filled(structural(Status, defaults=False))))
    code, answer = apply(judge, job, status)
    assert code == 200, answer
    assert answer["status"] == status
    assert parse_stored(Status, answer["status"])[1] == []


def test_an_empty_status_stays_empty(judge: ControlPlane, job: str) -> None:
    code, answer = apply(judge, job, {"phase": "Pending", "progress": {"step": 1}, "checkpoints": []})
    assert code == 200, answer
    assert answer["status"] == {"phase": "Pending", "progress": {"step": 1}, "checkpoints": []}


def test_conditions_are_a_map_by_type(judge: ControlPlane, job: str) -> None:
    one = {
        "type": "Running",
        "status": "True",
        "reason": "Steps",
        "message": "",
        "lastTransitionTime": "2026-01-31T12:00:00Z",
    }
    code, answer = apply(judge, job, {"conditions": [one, one]})
    assert code >= 400
    assert "conditions" in json.dumps(answer)


def test_a_status_of_an_unknown_phase_is_refused(judge: ControlPlane, job: str) -> None:
    code, answer = apply(judge, job, {"phase": "Sleeping"})
    assert code == 422
    assert "status.phase" in [field for field, _ in judges.complaints(answer)]


def test_the_spec_is_out_of_reach_of_a_status_write(judge: ControlPlane, job: str) -> None:
    before = judge.request("GET", job)[1]
    code, _ = apply(judge, job, {"phase": "Running"})
    after = judge.request("GET", job)[1]
    assert code == 200
    assert (before["spec"], before["metadata"]["generation"]) == (after["spec"], after["metadata"]["generation"])


def test_kubectl_shows_the_columns(judge: ControlPlane, job: str) -> None:
    display = {"model": "minilm", "progress": "42%", "loss": "0.113", "best": "f1=0.981", "eta": "3m10s"}
    apply(judge, job, {"phase": "Running", "reason": "Training", "display": display})
    name = job.rpartition("/")[2]
    head, row = judge.kubectl("get", "ftj", name).stdout.splitlines()
    assert head.split() == ["NAME", "PHASE", "MODEL", "METHOD", "PROGRESS", "LOSS", "BEST", "ETA", "AGE"]
    assert row.split()[:8] == [name, "Running", "minilm", "full", "42%", "0.113", "f1=0.981", "3m10s"]
    assert "REASON" in judge.kubectl("get", "ftj", name, "-o", "wide").stdout
    assert name in judge.kubectl("get", "all").stdout
