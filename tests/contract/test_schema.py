"""The generated schema: committed as it is generated, described throughout, bounded wherever a rule looks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.base import Model
from finetune_api.crd import custom_resource_definition, structural
from finetune_api.job import Spec
from finetune_api.status import Status
from finetune_api.tuning import Training

ROOT = Path(__file__).resolve().parents[2]
CRD = custom_resource_definition()
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


EVERYTHING = [*walk(SCHEMA["properties"]["spec"], "spec"), *walk(SCHEMA["properties"]["status"], "status")]


def test_the_committed_files_are_what_the_models_say() -> None:
    command = [sys.executable, str(ROOT / "crds" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_chart_keeps_and_may_leave_out_the_definition() -> None:
    text = (ROOT / "charts" / "finetune-operator" / "templates" / "crd.yaml").read_text()
    lines = text.splitlines()
    assert lines[1] == "{{- if .Values.crds.install }}"
    assert lines[-1] == "{{- end }}"
    rendered = yaml.safe_load("\n".join(lines[2:-1]))
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == CRD
    assert rendered == yaml.safe_load((ROOT / "crds" / "finetune-operator.io_finetunejobs.yaml").read_text())


def test_names_and_scope() -> None:
    names = CRD["spec"]["names"]
    assert CRD["metadata"]["name"] == "finetunejobs.finetune-operator.io"
    assert (names["kind"], names["shortNames"], names["categories"]) == ("FineTuneJob", ["ftj"], ["all"])
    assert CRD["spec"]["scope"] == "Namespaced"
    assert CRD["spec"]["versions"][0]["subresources"] == {"status": {}}


@pytest.mark.parametrize(
    ("path", "schema"),
    [e for e in EVERYTHING if not e[0].endswith("[]")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_every_field_is_described(path: str, schema: dict[str, Any]) -> None:
    assert schema["description"].endswith((".", ")")), path
    assert len(schema["description"]) > 5


def test_every_text_list_and_map_is_bounded() -> None:
    for path, schema in EVERYTHING:
        kind = schema.get("type")
        if kind == "string" and "enum" not in schema:
            assert "maxLength" in schema, path
        if kind == "array":
            assert "maxItems" in schema, path
            assert "x-kubernetes-list-type" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


def test_every_number_of_the_spec_is_bounded_below_and_above() -> None:
    open_ended = [
        path
        for path, s in EVERYTHING
        if path.startswith("spec") and s.get("type") in ("integer", "number") and not {"minimum", "maximum"} <= set(s)
    ]
    assert open_ended == []


def test_lists_that_are_maps() -> None:
    keys = {path: s["x-kubernetes-list-map-keys"] for path, s in EVERYTHING if s.get("x-kubernetes-list-type") == "map"}
    assert keys == {
        "spec.evaluation.sets": ["name"],
        "spec.workers.imagePullSecrets": ["name"],
        "spec.workers.env": ["name"],
        "status.conditions": ["type"],
    }


def test_only_amounts_are_integers_or_texts() -> None:
    either = [path for path, schema in EVERYTHING if schema.get("x-kubernetes-int-or-string")]
    assert either
    assert all(path.endswith(("limits[]", "requests[]")) for path in either)


def test_the_status_has_no_defaults_and_the_spec_has() -> None:
    assert not [path for path, schema in EVERYTHING if path.startswith("status") and "default" in schema]
    assert SCHEMA["properties"]["spec"]["properties"]["training"]["default"] == {}
    assert SCHEMA["properties"]["spec"]["properties"]["training"]["properties"]["seed"]["default"] == Training().seed


def test_every_rule_of_the_models_is_in_the_schema() -> None:
    written = {rule["rule"] for _, schema in EVERYTHING for rule in schema.get("x-kubernetes-validations", ())}
    stated = {rule.cel for model in _models(Spec) for rule in model.RULES}
    assert stated <= written
    assert len(stated) > 25


def _models(model: type[Model]) -> Iterator[type[Model]]:
    for found in Model.__subclasses__():
        if found.__module__.rsplit(".")[-1] in ("job", "pod", "sources", "storage", "tuning", "workers"):
            yield found


def test_the_definition_is_small_enough_for_kubectl_apply() -> None:
    assert (
        len((ROOT / "crds" / "finetune-operator.io_finetunejobs.yaml").read_bytes()) < 200_000
    )  # its annotation holds 262,144


def test_each_model_alone_gives_a_structural_schema() -> None:
    for model in (Spec, Status):
        schema = structural(model)
        assert schema["type"] == "object"
        assert "$defs" not in schema
