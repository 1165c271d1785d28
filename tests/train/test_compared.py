"""What a result is compared with: the base's own figures and the constant answer's equal scikit-learn's on the same
rows, they are found once, and a result that is no better is told as loudly as it should be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score, log_loss
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from finetune_api.exits import Reason
from finetune_api.run import World
from finetune_trainer.train.evaluation import Evaluator
from support.attempts import Bench
from support.jobs import job_config
from support.launch import run
from support.models import chats, mails, write_jsonl

Judged = list[tuple[str, int]]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    """(split, step) of all evaluations from now on."""
    seen: Judged = []
    real = Evaluator.judge

    def judge(self: Evaluator, split: str, step: int, *rest: Any, **more: Any) -> Any:
        seen.append((split, step))
        return real(self, split, step, *rest, **more)

    monkeypatch.setattr(Evaluator, "judge", judge)
    return seen


def answers(model: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    """Shares of spam, row by row, in plain transformers."""
    classifier = AutoModelForSequenceClassification.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    with torch.inference_mode():
        logits = [classifier(**tokenizer(row["text"], return_tensors="pt")).logits[0] for row in rows]
    return torch.stack(logits).double().softmax(-1)[:, 1].numpy()


def test_a_kept_head_and_the_constant_answer_equal_scikit_learns(bert: Path, fork_server: None, tmp_path: Path) -> None:
    base = BertForSequenceClassification.from_pretrained(bert, num_labels=2, id2label={0: "ham", 1: "spam"})
    with torch.no_grad():
        base.classifier.weight.mul_(100)
    base.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "model")
    train, test = mails(90, seed=1), mails(41, seed=2)
    ordered = np.sort(special.logit(answers(tmp_path / "model", test)))
    with torch.no_grad():
        base.classifier.bias[1] -= ordered[20:22].mean()  # else all rows are taken for one class
    base.save_pretrained(tmp_path / "model")
    write_jsonl(tmp_path / "data" / "train.jsonl", train)
    write_jsonl(tmp_path / "held" / "test.jsonl", test)
    config = job_config(
        tmp_path,
        data={"train": {"uri": f"{tmp_path.as_uri()}/data/*"}, "test": {"uri": f"{tmp_path.as_uri()}/held/test.jsonl"}},
        training={"maxSteps": 2, "globalBatchSize": 10},
        world=World(processes_per_worker=2, device="cpu", threads_per_process=1, timeout_seconds=60),
    )
    assert run("prepare", config) == 0
    assert run("launch", config) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    true, shares = np.array([row["label"] == "spam" for row in test]), answers(tmp_path / "model", test)
    assert 0 < (shares > 0.5).sum() < len(test), "the case shows nothing"
    before = found["before"]["test"]
    assert before["rows"] == 41
    assert before["accuracy"] == pytest.approx(accuracy_score(true, shares > 0.5), abs=1e-6)
    assert before["macro-f1"] == pytest.approx(f1_score(true, shares > 0.5, average="macro"), abs=1e-6)
    assert before["loss"] == pytest.approx(log_loss(true, shares), abs=1e-5)
    learned = [row["label"] for row in train]
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros(len(train)), learned)
    said = dummy.predict(np.zeros(len(test)))
    constant = found["constant"]
    assert constant["answer"] == f"always {str(said[0])!r}"
    truth = [row["label"] for row in test]
    assert constant["accuracy"] == pytest.approx(accuracy_score(truth, said), abs=1e-6)
    assert constant["macro-f1"] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0), abs=1e-6)
    kinds = [verdict["kind"] for verdict in found["verdicts"]]
    assert len(kinds) == 3
    assert kinds[0].endswith("Base")
    assert kinds[1].endswith("Constant")
    drawn = found["learned"]
    assert drawn["rows"] == 41
    assert drawn["accuracy"] * 41 == pytest.approx(round(drawn["accuracy"] * 41)), "41 rows were judged"


@pytest.fixture
def language(tmp_path: Path, llama: Path) -> Callable[..., Bench]:
    """Chats to learn, validation rows, and a set of something else."""
    other = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "zq xw vk jj " * 3}]}
    ] * 20
    uris = {
        name: {"uri": write_jsonl(tmp_path / f"{name}.jsonl", rows).as_uri()}
        for name, rows in (("train", chats(60, seed=1)), ("validation", chats(20, seed=2)), ("other", other))
    }

    def make(name: str, evaluation: dict[str, Any] | None = None, **spec: Any) -> Bench:
        spec = {
            "task": "causal-lm",
            "model": {"uri": llama.as_uri()},
            "data": {split: uris[split] for split in ("train", "validation")},
            "training": {"maxSteps": 6, "globalBatchSize": 8, "learningRate": 1e-2, "warmupRatio": 0.0},
            "evaluation": {"everySteps": 3, "sets": [{"name": "other", **uris["other"]}], **(evaluation or {})},
            "checkpoints": {"everySteps": 2},
        } | spec
        bench = Bench(tmp_path / name, spec)
        bench.prepare()
        return bench

    return make


def test_a_base_is_judged_once_whatever_interrupts_the_run(language: Callable[..., Bench], judged: Judged) -> None:
    whole = language("whole")
    report = whole.attempt()
    assert [found for found in judged if found[1] == 0] == [("validation", 0), ("set-other", 0)]
    before = whole.metrics()["before"]
    first = whole.events("evaluation")[0]
    assert (first["step"], first["loss"]) == (0, before["validation"]["loss"])
    assert [(p.step, p.metrics and p.metrics["loss"]) for p in report.history[:1]] == [(0, first["loss"])]
    assert report.best is not None
    assert report.best.step > 0, "the base is no checkpoint"
    judged.clear()
    stopped = language("stopped")
    error = stopped.failing(1, lambda: len(judged) > 1)  # in the midst of the base's evaluations
    assert error.reason is Reason.INTERRUPTED
    assert "after step 0" in error.message
    judged.clear()
    error = stopped.failing(2, lambda: ("validation", 3) in judged)
    assert error.reason is Reason.INTERRUPTED
    assert [found for found in judged if found[1] == 0] == [("set-other", 0)], "the first was done"
    judged.clear()
    stopped.attempt(3)
    assert not [found for found in judged if found[1] == 0]
    assert stopped.weights() == whole.weights()
    assert stopped.events() == whole.events()
    assert stopped.metrics()["before"] == before
    assert stopped.metrics()["verdicts"] == whole.metrics()["verdicts"]


def test_a_base_is_judged_without_virtual_tokens_and_what_it_forgot_is_named(language: Callable[..., Bench]) -> None:
    rate = {"maxSteps": 12, "globalBatchSize": 8, "learningRate": 5e-2, "warmupRatio": 0.0}
    full = language("full", {"everySteps": 12}, training=rate)
    prompt = language("prompt", method={"type": "prompt-tuning"})
    full.attempt()
    prompt.attempt()
    before, after = full.metrics()["before"], full.metrics()["sets"]["other"]
    assert prompt.metrics()["before"] == before
    told = {verdict["kind"]: verdict for verdict in full.metrics()["verdicts"]}
    assert list(told) == ["BetterThanBase", "Forgetting", "Fits"]
    rose = f"loss on set other rose from {before['set-other']['loss']:.4g} to {after['loss']:.4g}"
    assert rose in told["Forgetting"]["message"]
    assert full.metrics()["constant"] is None


def test_nothing_is_compared_where_that_is_not_wanted(language: Callable[..., Bench], judged: Judged) -> None:
    bench = language("alone", {"base": False})
    bench.attempt()
    assert not [found for found in judged if found[1] == 0]
    found = bench.metrics()
    assert (found["before"], found["constant"]) == ({}, None)
    assert [verdict["kind"] for verdict in found["verdicts"]] == ["Fits"]


def test_a_model_that_knows_its_rows_by_heart_is_told_in_report_card_and_status(tmp_path: Path, bert: Path) -> None:
    other = [row | {"label": "ham" if row["label"] == "spam" else "spam"} for row in mails(40, seed=4)]
    uris = [write_jsonl(tmp_path / f"{n}.jsonl", rows).as_uri() for n, rows in enumerate((mails(64, seed=3), other))]
    bench = Bench(
        tmp_path / "job",
        {
            "model": {"uri": bert.as_uri()},
            "data": {"train": {"uri": uris[0]}, "validation": {"uri": uris[1]}},
            "training": {"maxSteps": 60, "globalBatchSize": 16, "learningRate": 3e-3, "warmupRatio": 0.0},
            "evaluation": {"everySteps": 30},
            "checkpoints": {"keepBest": False},
        },
    )
    bench.prepare()
    report = bench.attempt()
    found = bench.metrics()
    told = {verdict.kind: verdict for verdict in report.verdicts or ()}
    assert list(told) == ["NoBetterThanConstant", "Overfitting"]
    assert [verdict.warning for verdict in told.values()] == [True, False]
    assert found["learned"]["accuracy"] > 0.9 > 0.5 > found["validation"]["accuracy"]
    assert (
        found["validation"]["macro-f1-low"] <= found["validation"]["macro-f1"] <= found["validation"]["macro-f1-high"]
    )
    page = (bench.folder / "out" / "report.html").read_text().replace("&#x27;", "'")
    card = (bench.folder / "out" / "README.md").read_text()
    assert f'<div class="note">{told["NoBetterThanConstant"].message}' in page
    assert f"- **Warning:** {told['NoBetterThanConstant'].message}" in card
    for text in (page, card):
        assert told["Overfitting"].message in text
