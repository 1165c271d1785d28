"""What people are told: the field, why, what to do; never the text that they typed, which may be a secret."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest

from finetune_api.base import FieldError, Model, parse, parse_stored
from finetune_api.job import Manifest, Spec
from support import judges

MINIMAL = judges.read(Path(__file__).parent / "valid" / "minimal.yaml")


A_KEY = "must be name or prefix/name, of letters, digits, -, _ and ., such as example.org/team"


def told(**spec: Any) -> list[tuple[str, str]]:
    manifest = copy.deepcopy(MINIMAL)
    manifest["spec"].update(spec)
    return judges.models(manifest)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"training": {"epochs": "3"}}, ("spec.training.epochs", "must be a number, not a text")),
        ({"training": {"maxSteps": 2.5}}, ("spec.training.maxSteps", "must be a whole number, without a fraction")),
        ({"training": {"maxSteps": True}}, ("spec.training.maxSteps", "must be a whole number, not true or false")),
        ({"training": {"epochs": math.nan}}, ("spec.training.epochs", "must be a number; NaN and infinity are none")),
        ({"suspend": "yes"}, ("spec.suspend", "must be true or false, not a text")),
        ({"model": "s3://m"}, ("spec.model", "must be an object, not a text")),
        (
            {"workers": {"env": [{"name": "A", "value": 1}]}},
            ("spec.workers.env[0].value", "must be a text, not a whole number; put it in quotes"),
        ),
        ({"workers": {"replicas": 0}}, ("spec.workers.replicas", "must be greater than or equal to 1")),
        (
            {"method": {"type": "qlora"}},
            (
                "spec.method.type",
                "must be 'full', 'freeze', 'features', 'setfit', 'lora', 'ia3', 'prompt-tuning' or 'prefix-tuning'",
            ),
        ),
        ({"workers": {"nodeSelector": {"a b": "c"}}}, ("spec.workers.nodeSelector", f"keys: {A_KEY}")),
        (
            {"workers": {"resources": {"limits": {"cpu": 0.5}}}},
            ("spec.workers.resources.limits.cpu", 'must be an amount such as 2, "500m" or "8Gi"'),
        ),
        (
            {"modle": {}},
            ("spec.modle", "no such field; check its spelling and place (kubectl explain ftj.spec lists all)"),
        ),
        ({"output": {"merge": False}}, ("spec.output.uri", "this field is required")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_one_line_in_plain_words(spec: dict[str, Any], expected: tuple[str, str]) -> None:
    assert told(**spec) == [expected]


def test_all_findings_at_once() -> None:
    fields = [field for field, _ in told(task="x", training={"epochs": 0, "seed": -1}, output={})]
    assert fields == ["spec.task", "spec.training.epochs", "spec.training.seed", "spec.output.uri"]


def test_the_error_s_text_is_a_line_for_each_finding() -> None:
    with pytest.raises(FieldError) as caught:
        parse(Spec, {**MINIMAL["spec"], "task": "x", "suspend": 1})
    task, suspend = str(caught.value).splitlines()
    assert task.startswith("task: must be 'text-classification', ")
    assert suspend == "suspend: must be true or false, not a whole number"


def test_no_finding_repeats_the_text_given() -> None:
    secret = "hunter2-hunter2"
    found = told(
        task=secret,
        model={"uri": secret},
        storage={"endpoint": f"https://user:{secret}@host", "credentialsSecret": secret.upper()},
        workers={"env": [{"name": secret, "value": 7}], "labels": {"a": f"{secret} "}, "replicas": secret},
    )
    assert len(found) >= 6
    assert secret not in str(found).casefold()


def test_files_are_for_this_machine_only() -> None:
    spec = {**MINIMAL["spec"], "model": {"uri": "file:///m"}, "output": {"uri": "file:///o"}}
    assert parse(Spec, spec, local=True).model.uri == "file:///m"
    with pytest.raises(FieldError, match="pods cannot see it"):
        parse(Spec, spec)


@pytest.mark.parametrize(("field", "value"), [("apiVersion", "finetune-operator.io/v1"), ("kind", "FinetuneJob")])
def test_another_kind_is_refused(field: str, value: str) -> None:
    assert [where for where, _ in judges.models({**MINIMAL, field: value})] == [field]


@pytest.mark.parametrize("data", [[], "text", 7, None])
def test_anything_but_an_object_is_refused(data: Any) -> None:
    assert [where for where, _ in judges.models(data)] == ["(top)"]


def test_what_a_newer_version_stored_is_read_and_named() -> None:
    newer = copy.deepcopy(MINIMAL["spec"])
    newer["training"] = {"seed": 1, "sharpness": {"rho": 0.05}}
    newer["workers"] = {"env": [{"name": "A", "value": "x", "fileRef": 1}], "nodeSelector": {"a": "b"}}
    newer["sharing"] = True
    spec, ignored = parse_stored(Spec, newer)
    assert ignored == ["sharing", "training.sharpness", "workers.env[0].fileRef"]
    assert spec.training.seed == 1
    assert not spec.model_extra
    assert not spec.training.model_extra
    with pytest.raises(FieldError):
        parse_stored(Spec, {**newer, "task": "of-the-future"})


def test_values_are_frozen() -> None:
    spec = parse(Spec, MINIMAL["spec"])
    assert isinstance(spec, Model)
    with pytest.raises(ValueError, match="frozen"):
        spec.suspend = True  # type: ignore[misc]


def test_the_manifest_reads_its_own_status() -> None:
    assert judges.models({**MINIMAL, "status": {"phase": "Running"}}) == []
    assert [where for where, _ in judges.models({**MINIMAL, "status": {"phaze": "Running"}})] == ["status.phaze"]
    assert parse(Manifest, MINIMAL).status is None
