"""A real model on real mails: MiniLM tells spam from ham as well as a well-known trainer does, and its output
predicts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .cluster import env
from .conftest import BUCKET, MAILS, Place
from .runs import minilm


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [42, 7] if env("FULL") else [42])
def test_minilm_learns_real_mails(place: Place, mail: list[dict[str, str]], tmp_path: Path, seed: int) -> None:
    job = place.job("minilm", **minilm(seed))
    status = job.wait_succeeded(1200)
    report = {
        "seed": seed,
        "test": status["test"],
        "rows_per_second": status["progress"].get("rowsPerSecond"),
        "seconds": status["attempts"][0].get("seconds"),
    }
    print("minilm:", json.dumps(report))
    assert status["data"]["trainRows"] == MAILS
    assert status["progress"]["step"] == MAILS // 16
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
