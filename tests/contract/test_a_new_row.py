"""A task, a method or a metric is added to the contract by adding a row: rules, defaults and reference follow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_api.tasks import TASKS
from finetune_api.text import listed

ROOT = Path(__file__).resolve().parents[2]
ADDED = """
import dataclasses, json, sys
from finetune_api import method, metrics, tasks

metrics.METRICS["hit-rate"] = metrics.MetricInfo("hit-rate", higher_is_better=True)
method.METHODS["bias"] = method.MethodInfo("bias", "the biases", 4.0, 8.0, merges=True)
tasks.TASKS["ranking"] = dataclasses.replace(
    tasks.TASKS["causal-lm"],
    name="ranking",
    kind="rankings",
    alternatives=((tasks.Role("prompt"), tasks.Role("label")),),
    metrics=("loss", "hit-rate"),
    default_metric="hit-rate",
    learning_rate=1e-6,
    default_max_length=64,
)

from finetune_api.base import FieldError, parse
from finetune_api.crd import custom_resource_definition
from finetune_api.job import Spec
from finetune_api.resolve import resolve
from finetune_api.run import HubAccess, Identity, Reporting, StorageAccess, World, run_config
from finetune_api.tuning import Method

sys.path.insert(0, "crds")
from reference import reference

BASE = {"task": "ranking", "model": {"uri": "s3://m/a"}, "output": {"uri": "s3://o/a"}, "method": {"type": "bias"}}
DATA = {"train": {"uri": "s3://d/a"}, "validation": {"fraction": 0.1}}


def refusal(**more):
    try:
        parse(Spec, {**BASE, "data": DATA, **more})
    except FieldError as error:
        return str(error)


spec = parse(Spec, {**BASE, "data": DATA})
config = run_config(
    spec,
    job=Identity(name="a/b", id="1"),
    attempt=1,
    world=World(),
    storage=StorageAccess(),
    hub=HubAccess(),
    reporting=Reporting(),
)
crd = custom_resource_definition()
print(
    json.dumps(
        {
            "crd": crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
            "reference": reference(crd),
            "resolved": resolve(
                config, train_rows=100, model_max_length=512, longest_row=300, p99_length=200
            ).to_json(),
            "better": metrics.higher_is_better("hit-rate"),
            "settings": parse(Method, {"type": "bias"}).settings,
            "refused": {
                "metric": refusal(evaluation={"metric": "accuracy"}),
                "columns": refusal(data={**DATA, "columns": {"messages": "m"}}),
                "labels": refusal(data={**DATA, "labels": ["a", "b"]}),
                "merge": refusal(output={"uri": "s3://o/a", "merge": True}),
            },
        }
    )
)
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the contract makes of the tables with a row more in each."""
    done = subprocess.run([sys.executable, "-c", ADDED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_names_are_accepted(seen: dict[str, Any]) -> None:
    fields = seen["crd"]["properties"]
    assert "ranking" in fields["task"]["enum"]
    assert "bias" in fields["method"]["properties"]["type"]["enum"]
    assert "hit-rate" in fields["evaluation"]["properties"]["metric"]["enum"]


def test_the_rules_know_them(seen: dict[str, Any]) -> None:
    rules = {rule["message"]: rule["rule"] for rule in seen["crd"]["x-kubernetes-validations"]}
    assert rules["only methods lora, ia3 and bias have adapters to merge; remove it"] == (
        "!self.output.merge || self.method.type in ['lora', 'ia3', 'bias']"
    )
    for role, here in (("label", "text-classification"), ("prompt", "causal-lm")):
        (message,) = (text for text in rules if text.startswith(f"{role} is for "))
        readers, instead = message.split("; ", 1)
        assert {here, "ranking"} <= set(readers.removeprefix(f"{role} is for ").replace(" and ", ", ").split(", "))
        assert rules[message].endswith(f"|| !has(self.data.columns) || !(has(self.data.columns.{role}))")
        assert "'ranking'" in rules[message]
        assert f"for {here} map" not in instead
    (message,) = (text for text in rules if text.startswith("messages and completion are for causal-lm; "))
    assert message.endswith("; for ranking map prompt and label")
    metrics = next(rule for message, rule in rules.items() if message.endswith("ranking has loss and hit-rate"))
    assert "(self.task == 'ranking' && self.evaluation.metric in ['loss', 'hit-rate'])" in metrics


def test_the_models_keep_the_rules(seen: dict[str, Any]) -> None:
    refused = seen["refused"]
    assert "ranking has loss and hit-rate" in refused["metric"]
    assert "for ranking map prompt and label" in refused["columns"]
    assert f"only {listed([name for name, task in TASKS.items() if task.labels])} ha" in refused["labels"]
    assert refused["merge"] is None


def test_the_defaults_are_the_row_s(seen: dict[str, Any]) -> None:
    resolved = seen["resolved"]
    assert (resolved["metric"], resolved["learningRate"], resolved["maxLength"]) == ("hit-rate", 4e-6, 64)
    assert seen["better"] is True
    assert seen["settings"] is None


def test_the_reference_has_them(seen: dict[str, Any]) -> None:
    page = seen["reference"]
    assert "bias: the biases" in page
    assert "hit-rate for rankings" in page
    assert "| `ranking` | prompt, label |" in page
    assert "| `bias` | the biases |" in page
