"""Numbers of any size are learned alike, and what is written answers in the data's units in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune_trainer.model.load import load_model
from finetune_trainer.model.units import InUnits, answer_in_units, fold_units
from finetune_trainer.model.weights import headers
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.models import scored, tiny_bert, tiny_llama, write_jsonl

HEAD = task_for("text-regression").head
IDS = torch.tensor([[2, 5, 7, 9, 3]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "model")


def bench(folder: Path, base: Path, scale: float, offset: float, steps: int, **more: Any) -> Bench:
    """A job on the same texts whose numbers are scaled and moved."""

    def rows(count: int, seed: int, name: str) -> dict[str, str]:
        made = [{**row, "score": row["score"] * scale + offset} for row in scored(count, seed)]
        return {"uri": write_jsonl(folder / f"{name}.jsonl", made).as_uri()}

    spec = {
        "task": "text-regression",
        "model": {"uri": base.as_uri()},
        "data": {"train": rows(96, 1, "train"), "validation": rows(24, 2, "val"), "test": rows(48, 3, "test")},
        "method": {"type": "full"},
        "training": {"maxSteps": steps, "globalBatchSize": 8, "learningRate": 3e-3},
        "output": {"uri": (folder / "out").as_uri()},
    }
    found = Bench(folder, spec | more)
    found.prepare()
    return found


def said(model: Any, out: Path, texts: list[str]) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(out)
    with torch.inference_mode():
        return np.array([model.eval()(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts])


def plain_rmse(model: Any, made: Bench) -> float:
    """Of the test rows, as any user would compute it."""
    lines = (made.folder / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    missed = said(model, made.folder / "out", [row["text"] for row in rows]) - [row["score"] for row in rows]
    return float(np.sqrt((missed**2).mean()))


def test_prices_are_learned_as_well_as_scores(base: Path, tmp_path: Path) -> None:
    """Moved by five times their spread and a thousand times as large."""
    scores, prices = bench(tmp_path / "scores", base, 1, 0, 48), bench(tmp_path / "prices", base, 1000, 5000, 48)
    small, large = scores.attempt().test, prices.attempt().test
    assert small is not None
    assert large is not None
    assert small["pearson"] > 0.7
    assert small["loss"] < 0.6, "of the spread that there was"
    assert large["pearson"] == pytest.approx(small["pearson"], abs=0.01)
    assert large["loss"] == pytest.approx(small["loss"], rel=0.02)
    assert large["rmse"] == pytest.approx(1000 * small["rmse"], rel=0.02)
    losses = [[event["loss"] for event in made.events("step")] for made in (scores, prices)]
    assert losses[1][:8] == pytest.approx(losses[0][:8], rel=1e-3)
    model = AutoModelForSequenceClassification.from_pretrained(prices.folder / "out")
    assert plain_rmse(model, prices) == pytest.approx(large["rmse"], rel=1e-4)


def test_an_adapter_and_what_it_is_merged_into_answer_in_the_datas_units(base: Path, tmp_path: Path) -> None:
    output = {"uri": (tmp_path / "job" / "out").as_uri(), "merge": True}
    made = bench(tmp_path / "job", base, 1000, 5000, 8, method={"type": "lora"}, output=output)
    report, out = made.attempt(), made.folder / "out"
    assert report.test is not None
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    for model in (
        PeftModel.from_pretrained(plain, out),
        AutoModelForSequenceClassification.from_pretrained(out / "merged"),
    ):
        assert plain_rmse(model, made) == pytest.approx(report.test["rmse"], rel=1e-3)


def test_weights_that_hold_the_units_are_not_rounded(tmp_path: Path) -> None:
    """Of numbers about a million that differ by tens, bfloat16 leaves nothing."""
    base = tiny_bert(tmp_path / "base")
    AutoModelForSequenceClassification.from_pretrained(base).bfloat16().save_pretrained(base)
    made = bench(tmp_path / "job", base, 10, 1e6, 4)
    report, out = made.attempt(), made.folder / "out"
    assert report.test is not None
    kinds = {name: stored.dtype for name, stored in headers(out).items()}
    assert kinds["classifier.weight"] == kinds["classifier.bias"] == "F32"
    assert kinds["bert.encoder.layer.0.attention.self.query.weight"] == "BF16"
    model = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    assert plain_rmse(model, made) == pytest.approx(report.test["rmse"], rel=0.05)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("family", [tiny_bert, tiny_llama])
def test_what_is_folded_answers_the_same(family: Any, trained: bool, tmp_path: Path) -> None:
    """A new head begins around the mean, one that came with the base where it was; a Llama's has no bias."""
    folder = family(tmp_path / "model")
    if trained:
        made = load_model(folder, HEAD, labels=None, seed=5, pad_id=0)
        made.save_pretrained(folder)
    model = load_model(folder, HEAD, labels=None, seed=0, pad_id=0).eval()
    with torch.inference_mode():
        before = model(input_ids=IDS).logits
        assert answer_in_units(model, folder, 5000.0, 1000.0)
        begun = model(input_ids=IDS).logits
        fold_units(model)
        folded = model(input_ids=IDS).logits
    assert torch.allclose(folded, begun, rtol=1e-5, atol=2e-3)
    assert not any(isinstance(module, InUnits) for module in model.modules())
    if trained:
        assert torch.allclose(begun, before, atol=2e-3), "5000 in single precision has so many digits"
    elif family is tiny_bert:
        assert torch.allclose(begun, before * 1000 + 5000, rtol=1e-5)
    else:
        assert torch.allclose(begun, before * (5000.0**2 + 1000.0**2) ** 0.5, rtol=1e-5)


def test_numbers_are_exact_in_half_precision_but_for_the_models_own(base: Path) -> None:
    """Under autocast a layer answers in bfloat16, which has no 5,001."""
    model = load_model(base, HEAD, labels=None, seed=0, pad_id=0).eval()
    assert answer_in_units(model, base, 5001.0, 1.0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=IDS).logits
    assert found.dtype == torch.float32
    assert abs(float(found) - 5001.0) < 1.0
