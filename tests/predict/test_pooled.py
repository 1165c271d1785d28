"""A job that leaves a trunk and a head of its own: what lies in the folder, what its card says, who goes on from it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import Reason
from predict.conftest import TEST, Predict
from support import cards
from support.attempts import Bench
from support.models import mails, tiny_bert, write_jsonl


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("pooled")
    train, test = write_jsonl(folder / "train.jsonl", mails(200, seed=1)), write_jsonl(folder / "test.jsonl", TEST)
    spec = {
        "model": {"uri": tiny_bert(folder / "bert").as_uri()},
        "data": {"train": {"uri": train.as_uri()}, "test": {"uri": test.as_uri()}},
        "method": {"type": "features", "features": {"head": "mlp", "hidden": 16}},
        "training": {"maxSteps": 150, "globalBatchSize": 16, "learningRate": 3e-2, "maxLength": 40},
    }
    bench = Bench(folder, spec)
    bench.prepare()
    bench.attempt()
    return bench


def test_the_trunk_is_the_base_and_the_head_lies_beside_it(job: Bench) -> None:
    out, base = job.folder / "out", job.folder / "bert"
    ours, theirs = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertModel"]
    said = json.loads((out / "task.json").read_text())
    assert said["version"] == 2
    assert said["head"] == {
        "file": "head.safetensors",
        "pooling": "mean",
        "head": "mlp",
        "inputs": 32,
        "hidden": 16,
        "outputs": 2,
        "activation": "gelu",
    }
    assert {name: tuple(t.shape) for name, t in load_file(out / "head.safetensors").items()} == {
        "hidden.weight": (16, 32),
        "hidden.bias": (16,),
        "output.weight": (2, 16),
        "output.bias": (2,),
    }
    assert job.metrics()["test"]["accuracy"] > 0.9
    assert job.snapshot().resolved.trainable_parameters == 16 * 33 + 2 * 17


def test_the_card_has_code_that_runs_and_answers_as_predict_does(job: Bench, predict: Predict) -> None:
    out = job.folder / "out"
    found = predict(out, job.folder / "test.jsonl")
    assert found.code == 0, found.said
    right = sum(row["prediction"]["label"] == row["label"] for row in found.rows) / len(TEST)
    assert right == pytest.approx(job.metrics()["test"]["accuracy"])
    printed = io.StringIO()
    given: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed):
        exec(cards.code_of(out), given)
    assert printed.getvalue().strip() in {"ham", "spam"}
    for row in found.rows[:8]:
        inputs = given["tokenizer"](row["text"], return_tensors="pt", truncation=True, max_length=40)
        shares = given["model"](**inputs).logits.softmax(-1)[0].tolist()
        scores = [row["prediction"]["scores"][name] for name in ("ham", "spam")]
        assert shares == pytest.approx(scores, abs=1e-5)
    card = (out / "README.md").read_text()
    assert 'pipeline_tag: "feature-extraction"' in card
    assert len(cards.code_of(out).splitlines()) < 35
    assert "As the `model.uri` of another job it is the trunk that is tuned on." in card


def test_another_job_goes_on_from_the_trunk(job: Bench, tmp_path: Path) -> None:
    spec = {**job.spec, "model": {"uri": (job.folder / "out").as_uri()}, "method": {"type": "full"}}
    more = Bench(tmp_path, {**spec, "training": {**spec["training"], "maxSteps": 2}})
    more.prepare()
    more.attempt()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]
    assert not (tmp_path / "out" / "head.safetensors").exists()


def test_a_head_that_is_lost_is_said(job: Bench, predict: Predict, tmp_path: Path) -> None:
    copy = shutil.copytree(job.folder / "out", tmp_path / "copy")
    (copy / "head.safetensors").unlink()
    found = predict(copy, job.folder / "test.jsonl")
    assert found.last.problem is not None
    assert found.last.problem.reason is Reason.MODEL_NOT_FOUND
    assert "head.safetensors is missing" in found.said
