"""Entities from rows to an output: learned in windows, resumed as if nothing had been, shown, and found again by what
the card says.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import Reason
from finetune_trainer.model.load import load_model
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.entities import LABELS, marked, tagged
from support.models import tiny_bert, write_jsonl

TASK = task_for("token-classification")
STEPS = 240


def bench(folder: Path, rows: list[dict[str, Any]], base: Path, **spec: Any) -> Bench:
    train = write_jsonl(folder / "train.jsonl", rows)
    plain = {
        "task": TASK.info.name,
        "model": {"uri": base.as_uri()},
        "data": {"train": {"uri": train.as_uri()}, "validation": {"fraction": 0.1}, "test": {"fraction": 0.1}},
        "training": {
            "maxSteps": STEPS,
            "globalBatchSize": 16,
            "microBatchSize": 8,
            "learningRate": 5e-3,
            "maxLength": 16,
        },
        "method": {"type": "full"},
        "output": {"uri": (folder / "out").as_uri()},
    }
    found = Bench(folder, plain | spec)
    found.prepare()
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, dict[str, float]]:
    """A run on texts with spans, half of them in windows, and what it came to on the test rows."""
    folder = tmp_path_factory.mktemp("run")
    found = bench(folder, marked(200, seed=1), tiny_bert(folder / "base", hidden=64, dropout=0.0))
    return found, found.attempt().test or {}


def test_entities_are_learned_and_shown(run: tuple[Bench, dict[str, float]]) -> None:
    found, test = run
    assert test["f1"] > 0.85
    assert test["f1-low"] <= test["f1"] <= test["f1-high"]
    assert {c["label"]: c["support"] > 0 for c in found.metrics()["classes"]} == {"PAPER": True, "PRIZE": True}
    page, card = ((found.folder / "out" / name).read_text() for name in ("report.html", "README.md"))
    assert "<h2>Entities, on the test rows</h2>" in page
    assert "<th>type</th>" in page
    assert re.search(r'<mark class="hue\d">[\w ]+<small>PRIZE</small></mark>', page)
    assert re.search(r"Entities:\s+\| type \| precision \| recall \| F1 \| entities \|", card)
    config = json.loads((found.folder / "out" / "config.json").read_text())
    assert [config["id2label"][str(n)] for n in range(5)] == list(LABELS)


def test_the_cards_code_finds_what_was_learned(run: tuple[Bench, dict[str, float]]) -> None:
    out = run[0].folder / "out"
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace('folder = "model"', f"folder = {str(out)!r}").replace("some text", "the report of a free prize")
    said = StringIO()
    with redirect_stdout(said):
        exec(code, {})
    lines = [line.split() for line in said.getvalue().splitlines()]
    assert [(line[0], line[1], line[2]) for line in lines] == [("PAPER", "4", "10"), ("PRIZE", "16", "26")]


def test_answers_need_no_truth_and_are_those_that_were_judged(run: tuple[Bench, dict[str, float]]) -> None:
    out = run[0].folder / "out"
    tokenizer = load_tokenizer(out)
    model = load_model(out, TASK.head, labels=LABELS, seed=0, pad_id=tokenizer.pad_id).eval()
    texts, words = marked(12, seed=9, words=(6, 40)), tagged(12, seed=9, words=(6, 40))
    assert TASK.predict is not None
    with torch.inference_mode():
        found = TASK.predict(
            model, [{"text": r["text"]} for r in texts], JobFacts({"text": "text"}, LABELS), {}, tokenizer, 16
        )
        tags = TASK.predict(
            model,
            [{"tokens": [*r["tokens"], " "]} for r in words],
            JobFacts({"tokens": "tokens"}, LABELS),
            {},
            tokenizer,
            16,
        )
        (nothing,) = TASK.predict(model, [{"text": " "}], JobFacts({"text": "text"}, LABELS), {}, tokenizer, 16)
    assert nothing == {"entities": []}
    for text, row, answer, own in zip(texts, words, found, tags, strict=True):
        for entity in answer["entities"]:
            assert text["text"][entity["start"] : entity["end"]] == entity["text"]
            assert 0.2 < entity["score"] <= 1
        assert len(own["tags"]) == len(own["scores"]) == len(row["tokens"]) + 1
        assert (own["tags"][-1], own["scores"][-1]) == ("O", 0.0)
        starts = [tag[2:] for tag in own["tags"] if tag.startswith("B-")]
        assert len(starts) <= len(answer["entities"]), "one entity at least for each tag that begins one"
    true = {(n, s["start"], s["end"], s["label"]) for n, r in enumerate(texts) for s in r["spans"]}
    mine = {(n, e["start"], e["end"], e["label"]) for n, a in enumerate(found) for e in a["entities"]}
    assert len(true & mine) / len(true) > 0.8


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path, bert: Path) -> None:
    spec = {"checkpoints": {"everySteps": 6}, "evaluation": {"everySteps": 8}}
    spec["training"] = {
        "maxSteps": 16,
        "globalBatchSize": 12,
        "microBatchSize": 4,
        "learningRate": 1e-2,
        "maxLength": 12,
    }
    whole = bench(tmp_path / "whole", tagged(80, seed=3), bert, **spec)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    whole.attempt()
    broken = Bench(tmp_path / "broken", whole.spec | {"output": {"uri": (tmp_path / "broken" / "out").as_uri()}})
    calls = iter(range(10_000))
    assert broken.failing(1, stop=lambda: next(calls) > 70).reason is Reason.INTERRUPTED
    stopped = broken.snapshot(1).progress.step  # type: ignore[union-attr]
    assert 0 < stopped < 16
    assert broken.attempt(2).resumed_from_step == stopped
    assert broken.events() == whole.events()
    assert broken.weights() == whole.weights()
    assert broken.metrics()["test"] == whole.metrics()["test"]


@pytest.fixture
def plain(tmp_path: Path, bert: Path) -> Bench:
    """A run on plain tags."""
    rows = [{"tokens": row["tokens"], "tags": [tag[2:] or "NONE" for tag in row["tags"]]} for row in tagged(80, seed=2)]
    training = {"maxSteps": 60, "globalBatchSize": 16, "learningRate": 5e-3}
    found = bench(tmp_path, rows, bert, training=training)
    found.attempt()
    return found


def test_plain_tags_are_learned_as_they_are(plain: Bench) -> None:
    test = plain.metrics()["test"]
    assert test["f1"] == test["macro-f1"]
    assert test["accuracy"] > 0.9
    page = (plain.folder / "out" / "report.html").read_text()
    assert "<h2>Tags, on the test rows</h2>" in page
    assert "<small>NONE</small>" in page
    card = (plain.folder / "out" / "README.md").read_text()
    assert "aggregation_strategy" not in card
    assert "AutoModelForTokenClassification.from_pretrained" in card
