"""What an earlier version stored is read to the same values, and written back as it was.

The files of stored/ were written by that version: two jobs at three moments, with their status, and what passed between
operator and trainer. They are never made anew: a field that is renamed or lost fails here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.base import Model, parse, parse_stored
from finetune_api.exits import Reason
from finetune_api.job import Manifest, Spec
from finetune_api.lenient import parse_lenient
from finetune_api.report import Report, Stage
from finetune_api.run import RunConfig
from finetune_api.status import Best, Phase, Status

STORED = Path(__file__).parent / "stored"
JOBS = ("running", "succeeded", "failed")


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text())
    return found


def everywhere(model: type[Model], data: dict[str, Any]) -> Model:
    """The value, which each way of reading gives, and which is written back as it was stored."""
    value = parse(model, data)
    assert parse_stored(model, data) == (value, [])
    assert value.to_json() == data
    return value


@pytest.mark.parametrize("name", JOBS)
def test_a_stored_job_is_a_valid_manifest(name: str) -> None:
    manifest = parse(Manifest, stored(name))
    assert manifest.status == parse(Status, stored(name)["status"])
    assert manifest.spec == parse_stored(Spec, stored(name)["spec"])[0]


@pytest.mark.parametrize("name", JOBS)
def test_a_stored_status_is_read_and_written_back(name: str) -> None:
    data = stored(name)["status"]
    assert parse_lenient(Status, data) == (everywhere(Status, data), [])


@pytest.mark.parametrize("name", JOBS)
def test_what_a_newer_version_adds_changes_nothing_of_the_rest(name: str) -> None:
    data = stored(name)["status"]
    newer = {**data, "phase": "Dreaming", "dreams": 3}
    read, left_out = parse_lenient(Status, newer)
    assert left_out == ["phase", "dreams"]
    assert read == parse(Status, {key: value for key, value in data.items() if key != "phase"})


@pytest.mark.parametrize(("model", "name"), [(Report, "report"), (RunConfig, "run-config")])
def test_what_passed_between_operator_and_trainer_is_read_and_written_back(model: type[Model], name: str) -> None:
    everywhere(model, stored(name))


def test_the_status_of_a_job_that_succeeded_after_a_restart_says_what_it_said() -> None:
    status = parse(Status, stored("succeeded")["status"])
    assert (status.phase, status.reason, status.restarts, status.goodput) == (Phase.SUCCEEDED, "Completed", 1, 0.8772)
    first, second = status.attempts
    assert (first.number, first.from_step, first.last_step, first.reason) == (2, 100, 300, None)
    assert (second.number, second.lost_steps, second.reason, second.exit_code) == (1, 30, Reason.INTERNAL_ERROR, 44)
    assert second.place == "ValueError@0123456789ab"
    assert [(c.step, c.best) for c in status.checkpoints] == [(300, False), (200, True)]
    assert status.best == Best(step=200, metric="macro-f1", value=0.9688)
    assert status.test is not None
    assert status.test["macro-f1-low"] == 0.9333
    assert status.resolved is not None
    assert (status.resolved.columns, status.resolved.learning_rate) == ({"text": "body", "label": "label"}, 5e-4)
    assert status.data is not None
    assert [finding.kind for finding in status.data.findings] == ["InvalidJson", "Truncated"]
    assert [point.step for point in status.history] == [1, 10, 50, 100, 200, 300]
    assert {c.type: c.status for c in status.conditions} == {
        "Validated": "True",
        "Running": "False",
        "Succeeded": "True",
    }


def test_the_failure_of_a_job_says_what_it_said() -> None:
    status = parse(Status, stored("failed")["status"])
    assert status.failure is not None
    assert (status.phase, status.failure.reason, status.failure.exit_code, status.failure.field) == (
        Phase.FAILED,
        Reason.NON_FINITE_LOSS,
        30,
        "spec.training.learningRate",
    )


def test_a_report_and_a_run_config_say_what_they_said() -> None:
    report, config = parse(Report, stored("report")), parse(RunConfig, stored("run-config"))
    assert (report.stage, report.attempt, report.resumed_from_step) == (Stage.FINISHED, 2, 100)
    assert (config.task, config.method.type, config.attempt, config.world.workers) == (
        "text-classification",
        "lora",
        2,
        2,
    )
