"""The spec is frozen from creation, but for the fields marked mutable: judged by a real API server, field by field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from finetune_api.job import Spec
from support import judges
from support.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

BEFORE: dict[str, Any] = {
    "task": "text-classification",
    "model": {"uri": "s3://models/minilm"},
    "data": {"train": {"uri": "s3://mail/train"}, "validation": {"fraction": 0.1}, "columns": {"text": "body"}},
    "output": {"uri": "s3://models/spam"},
    "image": "example.org/trainer:1",
    "workers": {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "resources": {"limits": {"cpu": "1"}},
    },
}
CHANGES: dict[str, Any] = {
    "task": "causal-lm",
    "model": {"uri": "s3://models/other"},
    "data": {"train": {"uri": "s3://mail/train"}, "validation": {"fraction": 0.2}, "columns": {"text": "body"}},
    "method": {"type": "lora"},
    "maskedLm": {"maskShare": 0.2},
    "training": {"epochs": 2},
    "questionAnswering": {"stride": 8},
    "evaluation": {"everySteps": 5},
    "checkpoints": {"keepLast": 3},
    "output": {"uri": "s3://models/elsewhere"},
    "prepare": {"nodeSelector": {"pool": "cpu"}},
    "workers": {"replicas": 2},
    "storage": {"region": "eu-central-1"},
    "hub": {"endpoint": "https://hub.example.org"},
    "image": "example.org/trainer:2",
    "imagePullPolicy": "Always",
    "imageClassification": {"flip": False},
}
MUTABLE: dict[str, Any] = {
    "restartPolicy": {"maxRestarts": 9},
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
    "suspend": True,
}


@pytest.fixture(scope="module")
def created(judge: ControlPlane) -> dict[str, Any]:
    manifest = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "frozen"},
        "spec": BEFORE,
    }
    complaints, answer = judges.server(judge, manifest, dry_run=False)
    assert complaints == []
    return answer


def update(judge: ControlPlane, created: dict[str, Any], **spec: Any) -> judges.Complaints:
    changed = copy.deepcopy(created)
    changed["spec"].update(spec)
    changed["spec"] = {name: value for name, value in changed["spec"].items() if value is not None}
    return judges.server(judge, changed, update=True)[0]


def test_every_field_of_the_spec_is_tried() -> None:
    assert {*CHANGES, *MUTABLE} == {field.alias or name for name, field in Spec.model_fields.items()}


@pytest.mark.parametrize("field", CHANGES)
def test_a_frozen_field_says_so(field: str, judge: ControlPlane, created: dict[str, Any]) -> None:
    complaints = update(judge, created, **{field: CHANGES[field]})
    says = f"spec.{field} is frozen after creation; delete the job and create a new one"
    assert any(where == f"spec.{field}" and says in message for where, message in complaints), complaints


def test_an_optional_field_can_not_be_taken_away(judge: ControlPlane, created: dict[str, Any]) -> None:
    assert [where for where, _ in update(judge, created, image=None)] == ["spec.image"]


def test_a_part_inside_a_frozen_field_can_not_be_taken_away(judge: ControlPlane, created: dict[str, Any]) -> None:
    data = {key: value for key, value in created["spec"]["data"].items() if key != "columns"}
    assert [where for where, _ in update(judge, created, data=data)] == ["spec.data"]


@pytest.mark.parametrize("field", MUTABLE)
def test_a_mutable_field_may_change_and_go(field: str, judge: ControlPlane, created: dict[str, Any]) -> None:
    assert update(judge, created, **{field: MUTABLE[field]}) == []
    assert update(judge, created, **{field: None}) == []


def test_an_update_that_changes_nothing_is_accepted(judge: ControlPlane, created: dict[str, Any]) -> None:
    workers = {**created["spec"]["workers"], "env": list(reversed(created["spec"]["workers"]["env"]))}
    assert update(judge, created) == []
    assert update(judge, created, workers=workers) == []  # the list is a map by name: its order says nothing


def test_the_manifest_without_defaults_may_be_applied_again(judge: ControlPlane, created: dict[str, Any]) -> None:
    assert judges.server(judge, {**created, "spec": BEFORE}, update=True)[0] == []
