"""What the predict step is told and what it says: both cross a process's border as JSON, and come back as they were."""

from __future__ import annotations

import json

import pytest

from finetune_api.base import FieldError, parse
from finetune_api.exits import Reason
from finetune_api.predict import PredictConfig, PredictReport
from finetune_api.report import Problem
from finetune_api.tasks import TASKS

CONFIG = {"output": "s3://models/out", "rows": "s3://rows/*.jsonl", "target": "/tmp/answers.jsonl", "scratch": "/tmp/s"}


def test_a_configuration_comes_back_as_it_was_sent() -> None:
    sent = parse(PredictConfig, CONFIG | {"columns": {"text": "body"}, "maxBadRows": 3})
    assert sent.answer == "prediction"
    assert PredictConfig.model_validate_json(json.dumps(sent.to_json())) == sent


def test_a_field_that_nobody_knows_is_refused_by_its_name() -> None:
    with pytest.raises(FieldError, match="maxBadRow"):
        parse(PredictConfig, CONFIG | {"maxBadRow": 3})


def test_a_report_tells_how_it_ended() -> None:
    problem = Problem(reason=Reason.INVALID_DATA, message="a.jsonl:3: no text")
    sent = PredictReport(rows=2, total=9, task="causal-lm", problem=problem)
    assert PredictReport.model_validate_json(json.dumps(sent.to_json())) == sent


def test_tasks_whose_rows_stand_for_files_say_so() -> None:
    assert {name for name, task in TASKS.items() if task.reads_files} == {"image-classification"}
