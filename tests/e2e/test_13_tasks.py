"""One job of each task goes through the operator, from rows in the storage to a model that the status knows how good it
is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.tasks import TASKS
from finetune_trainer.tasks.registry import task_for
from matrix import rows
from support.zoo import BARE, folder_of

from .conftest import BUCKET, Place

ROWS, SEED = 120, 4
IN_SHORT_FORM = {"image-classification"}
"""Data that are no rows of text go another way through the storage."""


@pytest.mark.parametrize(
    "task", [pytest.param(name, marks=() if name in IN_SHORT_FORM else pytest.mark.nightly) for name in TASKS]
)
def test_a_job_of_each_task_ends_with_a_model_and_its_scores(place: Place, task: str, tmp_path: Path) -> None:
    info, head = TASKS[task], task_for(task).head
    storage, prefix = place.storage, f"tasks/{place.name}"
    base = folder_of(info.families[0].model_type, BARE if head.is_new else head.auto_class)
    storage.put_folder(BUCKET, f"{prefix}/model", base)
    written = rows.write(tmp_path, task, ROWS, SEED)
    storage.put_folder(BUCKET, f"{prefix}/data", tmp_path)
    tail = written.removeprefix(tmp_path.as_uri())

    job = place.job(
        task,
        task=task,
        model__uri=f"s3://{BUCKET}/{prefix}/model",
        data={"train": {"uri": f"s3://{BUCKET}/{prefix}/data{tail}"}, "validation": {"fraction": 0.2}},
        training={"maxSteps": 20, "globalBatchSize": 16, "learningRate": 5e-3},
        workers__replicas=2,
    )
    status = job.wait_succeeded(300)
    assert status["best"]["metric"] == info.default_metric
    assert status["checkpoints"]
    folder = storage.download(BUCKET, place.output(task), tmp_path / "out")
    assert json.loads((folder / "task.json").read_text())["task"] == task
    assert (folder / "model.safetensors").stat().st_size > 1000
    assert (folder / "report.html").stat().st_size > 500
