"""Named sets are judged once, at the end, by what the validation rows chose: figures equal scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune_api.run import World
from support.jobs import job_config
from support.launch import run
from support.models import topics, write_jsonl

LABELS = ["ham", "short", "spam"]


@pytest.fixture(scope="module")
def judged(bert: Path, fork_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two ranks, and its sets; its folder."""
    folder = tmp_path_factory.mktemp("sets")
    for name, count in (("train", 120), ("validation", 40), ("test", 31), ("first", 23), ("second", 1)):
        write_jsonl(folder / "data" / f"{name}.jsonl", topics(count, seed=count))
    uri = f"{folder.as_uri()}/data"
    config = job_config(
        folder,
        task="multi-label-classification",
        model={"uri": bert.as_uri()},
        data={name: {"uri": f"{uri}/{name}.jsonl"} for name in ("train", "validation", "test")},
        training={"maxSteps": 6, "globalBatchSize": 20, "learningRate": 3e-3},
        evaluation={"sets": [{"name": name, "uri": f"{uri}/{name}.jsonl"} for name in ("first", "second")]},
        world=World(processes_per_worker=2, device="cpu", threads_per_process=1, timeout_seconds=60),
    )
    assert run("prepare", config) == 0
    assert run("launch", config) == 0
    return folder


def answers(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows' classes, and the exported model's shares, row by row."""
    out = folder / "out"
    model = AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    rows = [json.loads(line) for line in (folder / "data" / f"{name}.jsonl").read_text().splitlines()]
    with torch.inference_mode():
        logits = [model(**tokenizer(row["text"], return_tensors="pt")).logits[0] for row in rows]
    true = np.array([[label in row["labels"] for label in LABELS] for row in rows])
    return true, torch.stack(logits).double().sigmoid().numpy()


def test_figures_equal_scikit_learns_at_the_thresholds_of_the_validation_rows(judged: Path) -> None:
    found = json.loads((judged / "out" / "metrics.json").read_text())
    thresholds = json.loads((judged / "out" / "task.json").read_text())["decision"]["thresholds"]
    assert thresholds != [0.5] * 3, "the case shows nothing"
    assert list(found["sets"]) == ["first", "second"]
    for name, rows in (("first", 23), ("second", 1)):
        true, shares = answers(judged, name)
        said, mine = shares >= np.array(thresholds), found["sets"][name]
        assert mine["rows"] == rows
        for average in ("micro", "macro"):
            wanted = f1_score(true, said, average=average, zero_division=0)
            assert mine[f"{average}-f1"] == pytest.approx(wanted, abs=1e-6)
        assert mine["subset-accuracy"] == pytest.approx((true == said).all(1).mean(), abs=1e-6)
        loss = np.mean([log_loss(true[:, k], shares[:, k], labels=[False, True]) for k in range(3)])
        assert mine["loss"] == pytest.approx(loss, abs=1e-5)
        assert mine["micro-f1-low"] <= mine["micro-f1"] <= mine["micro-f1-high"]


def test_events_status_card_and_report_tell_of_each_set(judged: Path) -> None:
    out = judged / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    told = {event["name"]: event for event in events if event["kind"] == "set"}
    report: dict[str, Any] = json.loads((out / "result.json").read_text())["report"]
    chosen = report["resolved"]["metric"]
    assert list(told) == ["first", "second"]
    assert [(each["name"], each["rows"]) for each in report["sets"]] == [("first", 23), ("second", 1)]
    for each in report["sets"]:
        mine = metrics["sets"][each["name"]]
        assert told[each["name"]]["loss"] == each["metrics"]["loss"] == mine["loss"]
        assert each["metrics"][chosen] == mine[chosen]
    page, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    worst = min(("first", "second"), key=lambda name: metrics["sets"][name][chosen])
    by = metrics["test"][chosen] - metrics["sets"][worst][chosen]
    assert f"| first | 23 | {metrics['sets']['first'][chosen]:.4f}" in card
    assert f"<strong>{worst}</strong>" in page
    for text in (page.replace("&#x27;", "'"), card):
        assert f"Worst on set '{worst}': {chosen}" in text
        assert (f"worse by {by:.4g} than the" in text) == (by > 0)
