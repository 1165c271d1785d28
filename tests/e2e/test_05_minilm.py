"""A real model on real mails: MiniLM tells spam from ham as well as a well-known trainer does, and its output predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from examples import data

from .cluster import env
from .conftest import BUCKET, Place, shard
from .storage import Storage

ROWS = 2000
# Two pods share the cores of a small node with each other: one thread each.
RESOURCES = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "3Gi"}}


@pytest.fixture(scope="module")
def mail(storage: Storage) -> list[dict[str, str]]:
    """s3://e2e/minilm, s3://e2e/spam/{train,test}: the model, 2,000 mails to learn from and 1,000 to test; returns the test mails."""
    try:
        mails, minilm = data.mails(), data.minilm()
    except data.Unavailable as error:
        pytest.skip(str(error))
    rows = [row for path in sorted(mails.glob("train-*.jsonl.zst")) for row in data.read_shard(path)][:ROWS]
    test = data.read_shard(mails / "test.jsonl.zst")
    storage.put_folder(BUCKET, "models/minilm", minilm)
    for index, body in enumerate(shard(rows, 8)):
        storage.put(BUCKET, f"spam/train/part-{index}.jsonl.zst", body)
    storage.put(BUCKET, "spam/test/part-0.jsonl.zst", shard(test, 1)[0])
    return test


@pytest.mark.parametrize(
    "seed", [42, pytest.param(7, marks=pytest.mark.skipif(not env("FULL"), reason="only with FULL=1"))]
)
def test_minilm_learns_real_mails(place: Place, mail: list[dict[str, str]], tmp_path: Path, seed: int) -> None:
    job = place.job(
        "minilm",
        model__uri=f"s3://{BUCKET}/models/minilm",
        data={
            "train": {"uri": f"s3://{BUCKET}/spam/train/*.jsonl.zst"},
            "test": {"uri": f"s3://{BUCKET}/spam/test/*.jsonl.zst"},
            "columns": {"text": "body", "label": "label"},
        },
        training={"epochs": 1, "globalBatchSize": 16, "learningRate": 1e-4, "maxLength": 128, "seed": seed},
        workers={"replicas": 2, "resources": RESOURCES},
    )
    status = job.wait_succeeded(1200)
    report = {
        "seed": seed,
        "test": status["test"],
        "rows_per_second": status["progress"].get("rowsPerSecond"),
        "seconds": status["attempts"][0].get("seconds"),
    }
    print("minilm:", json.dumps(report))
    assert status["data"]["trainRows"] == ROWS
    assert status["progress"]["step"] == ROWS // 16
    assert status["test"]["macro-f1"] >= 0.95
    assert len(status["history"]) > 10

    folder = place.storage.download(BUCKET, place.output("minilm"), tmp_path / "out")
    right = predict(folder, mail[:200])
    assert right >= 0.93


def predict(folder: Path, rows: list[dict[str, str]]) -> float:
    """Share of right answers, by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    right = 0
    for start in range(0, len(rows), 50):
        chunk = rows[start : start + 50]
        batch = tokenizer(
            [row["body"] for row in chunk], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.inference_mode():
            answers = model(**batch).logits.argmax(-1).tolist()
        right += sum(model.config.id2label[answer] == row["label"] for answer, row in zip(answers, chunk, strict=True))
    return right / len(rows)
