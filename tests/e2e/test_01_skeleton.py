"""The whole path once: apply, prepare, train on two workers, evaluate, export; then use what came of it."""

from __future__ import annotations

import json
from pathlib import Path

from support import models

from .conftest import BUCKET, Place


def test_a_job_goes_from_apply_to_a_model_that_predicts(place: Place, tmp_path: Path) -> None:
    job = place.job("skeleton", workers__replicas=2)
    status = job.wait_succeeded(300)

    assert status["observedGeneration"] == job.object["metadata"]["generation"]
    assert status["progress"]["step"] == status["progress"]["totalSteps"] == status["resolved"]["totalSteps"]
    assert status["data"]["trainRows"] + status["data"]["validationRows"] == 480
    assert status["data"]["testRows"] == 160
    assert status["test"]["macro-f1"] > 0.8
    assert status["checkpoints"]
    assert status["output"]["uri"] == f"s3://{BUCKET}/{place.output('skeleton')}"
    assert {each["type"] for each in status["conditions"] if each["status"] == "True"} >= {"Validated", "Succeeded"}

    folder = place.storage.download(BUCKET, place.output("skeleton"), tmp_path / "out")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics
    steps = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert steps
    for name in ("README.md", "report.html"):
        assert (folder / name).stat().st_size > 500, name
    assert predict(folder) > 0.8


def predict(folder: Path) -> float:
    """Share of right answers of the tuned model on rows it has never seen, loaded as a user would load it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = models.mails(100, seed=9)
    batch = tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        answers = model(**batch).logits.argmax(-1).tolist()
    return sum(model.config.id2label[answer] == row["label"] for answer, row in zip(answers, rows, strict=True)) / len(
        rows
    )
