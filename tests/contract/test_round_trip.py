"""Whatever is written is read back as the same value: spec, status, run.json, reports and the last word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.base import Model, parse, parse_stored
from finetune_api.crd import structural
from finetune_api.job import Spec
from finetune_api.report import TERMINATION_BYTES, Outcome, Report
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config
from finetune_api.status import Status
from support.control_plane import ControlPlane
from support.filled import filled
from support.judges import models, server
from support.strategies import json_of, specs

SCHEMAS = {model: structural(model, defaults=False) for model in (Status, Report, Outcome)}


def survives(value: Model) -> None:
    """Equal after a journey as JSON text, and after one as plain data; nothing of it is unknown to a lenient reader."""
    text = value.model_dump_json(by_alias=True, exclude_none=True)
    assert type(value).model_validate_json(text) == value
    assert parse(type(value), value.to_json()) == value
    assert parse_stored(type(value), json.loads(text)) == (value, [])


def manifest(spec: dict[str, Any]) -> dict[str, Any]:
    head = {"apiVersion": "finetune-operator.io/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x"}}
    return {**head, "spec": spec}


@given(specs())
def test_a_spec_survives(spec: dict[str, Any]) -> None:
    survives(parse(Spec, spec))


@pytest.mark.apiserver
@settings(max_examples=60)
@given(spec=specs())
def test_the_server_agrees_about_any_valid_spec(judge: ControlPlane, spec: dict[str, Any]) -> None:
    assert models(manifest(spec)) == []
    complaints, stored = server(judge, manifest(spec))
    assert complaints == []
    assert stored["spec"] == parse(Spec, spec).to_json()


@given(json_of(SCHEMAS[Status]))
def test_a_status_survives(status: dict[str, Any]) -> None:
    survives(parse(Status, status))


@given(json_of(SCHEMAS[Report]))
def test_a_report_survives(report: dict[str, Any]) -> None:
    survives(parse(Report, report))


@given(json_of(SCHEMAS[Outcome]))
def test_a_last_word_survives_and_fits(outcome: dict[str, Any]) -> None:
    value = parse(Outcome, outcome)
    survives(value)
    message = value.to_message()
    assert len(message.encode()) <= TERMINATION_BYTES
    survives(Outcome.model_validate_json(message))


@given(
    specs(),
    st.integers(1, 1000),
    st.builds(
        World, workers=st.integers(1, 512), processes_per_worker=st.integers(1, 64), master_address=st.text(max_size=50)
    ),
    st.builds(StorageAccess, endpoint=st.none() | st.text(max_size=50), path_style=st.none() | st.booleans()),
    st.builds(Reporting, url=st.none() | st.text(max_size=50), interval_seconds=st.floats(0.1, 100)),
)
def test_a_run_config_survives(
    spec: dict[str, Any], attempt: int, world: World, storage: StorageAccess, reporting: Reporting
) -> None:
    identity = Identity(name="team/job", id="0b5f")
    parsed = parse(Spec, spec)
    config = run_config(
        parsed, job=identity, attempt=attempt, world=world, storage=storage, hub=HubAccess(), reporting=reporting
    )
    survives(config)
    assert (config.data, config.training, config.method, config.output) == (
        parsed.data,
        parsed.training,
        parsed.method,
        parsed.output,
    )


@pytest.mark.parametrize("letter", ["x", "\x01", "🚂", '"'])
def test_the_longest_last_word_fits_and_keeps_what_matters(letter: str) -> None:
    schema = SCHEMAS[Outcome]
    value = parse(Outcome, {**filled(schema, letter), "exitCode": 21, "version": 1})
    said = Outcome.model_validate_json(value.to_message())
    assert len(value.to_message().encode()) <= TERMINATION_BYTES
    assert (said.job_id, said.attempt, said.exit_code, said.step) == (value.job_id, value.attempt, 21, value.step)
    assert said.problem is not None
    assert value.problem is not None
    assert said.problem.reason == value.problem.reason
    assert value.problem.message.startswith(said.problem.message)
    assert len(said.problem.message) >= 256


def test_a_short_last_word_loses_nothing() -> None:
    value = Outcome(job_id="a", attempt=1, exit_code=0, step=7, seconds={"train": 1.5})
    assert Outcome.model_validate_json(value.to_message()) == value


def test_run_configs_and_reports_of_another_version_are_refused() -> None:
    for model in (RunConfig, Report, Outcome):
        field = model.model_json_schema()["properties"]["version"]
        assert (field["const"], field["default"]) == (1, 1)
