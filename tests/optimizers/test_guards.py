"""Guards against over-fitting in training itself: the averaged weights are what is judged and kept, smoothing is not
seen by evaluations, dropout is what the user asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_trainer.optimizers.average import WeightAverage
from support.attempts import Bench
from support.models import mails, write_jsonl

Make = Callable[..., Bench]
STEPS, DECAY = 8, 0.6


@pytest.fixture
def job(tmp_path: Path, bert: Path) -> Make:
    """A finished run; the validation and the test rows are the same, and say the opposite of what is learned."""
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1)).as_uri()
    opposite = [row | {"label": "ham" if row["label"] == "spam" else "spam"} for row in mails(30, seed=2)]
    held_out = write_jsonl(tmp_path / "held-out.jsonl", opposite).as_uri()
    common = {"maxSteps": STEPS, "globalBatchSize": 8, "learningRate": 1e-2, "warmupRatio": 0.0}

    def run(name: str, *, keep_best: bool = False, method: str = "full", **training: Any) -> Bench:
        bench = Bench(
            tmp_path / name,
            {
                "model": {"uri": bert.as_uri()},
                "data": {"train": {"uri": train}, "validation": {"uri": held_out}, "test": {"uri": held_out}},
                "method": {"type": method},
                "training": common | training,
                "evaluation": {"everySteps": 2, "metric": "loss"},
                "checkpoints": {"everySteps": 1, "keepLast": 100, "keepBest": keep_best},
            },
        )
        bench.prepare()
        bench.attempt()
        return bench

    return run


def stored(bench: Bench, step: int) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in (bench.folder / "out" / "ckpt" / "1" / str(step)).glob("*.safetensors"):
        found |= load_file(path)
    return found


def test_the_mean_follows_its_formula_and_is_what_is_judged_and_kept(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, real = [], WeightAverage.update

    def update(average: WeightAverage, step: int) -> None:
        if not taken:
            taken.append({name: mean.clone() for name, mean in average._means.items()})
        taken.append({name: weight.detach().clone() for name, weight in average._weights.items()})
        real(average, step)

    monkeypatch.setattr(WeightAverage, "update", update)
    bench = job("ema", emaDecay=DECAY)
    mean, *weights = taken
    assert len(weights) == STEPS
    for step, own in enumerate(weights, 1):
        keep = min(DECAY, (1 + step) / (10 + step))
        mean = {name: keep * mean[name] + (1 - keep) * own[name] for name in own}
    output = load_file(bench.folder / "out" / "model.safetensors")
    assert all(torch.allclose(output[name], mean[name], atol=1e-6) for name in output)
    assert any(not torch.allclose(output[name], weights[-1][name], atol=1e-4) for name in output)
    last = stored(bench, STEPS)
    assert all(torch.equal(output[name], last[f"average.{name}"]) for name in output)
    assert all(torch.equal(weights[-1][name], last[f"model.{name}"]) for name in output)
    assert bench.events("test")[0]["loss"] == bench.events("evaluation")[-1]["loss"]


def test_the_best_means_are_kept_also_of_adapters(job: Make) -> None:
    bench = job("lora", method="lora", emaDecay=DECAY, keep_best=True, learningRate=5e-2)
    judged = bench.events("evaluation")
    best = min(judged, key=lambda e: e["loss"])
    means = stored(bench, best["step"])  # of most orders of the rows an early one: the rate is far too high
    assert bench.events("test")[0]["loss"] == pytest.approx(best["loss"], rel=1e-6)
    names = [name for name in means if name.startswith("average.")]
    assert names
    assert all("lora" in name or "classifier" in name or "pooler" in name for name in names)


def test_within_the_exchange_the_model_has_the_mean_and_behind_it_its_own_weights() -> None:
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.weight.add_(1.0)
    with average.in_place():
        assert torch.equal(model.weight, before)
    assert torch.equal(model.weight, before + 1.0)
    fresh = WeightAverage(torch.nn.Linear(2, 1), 0.9)
    fresh.load({})
    average.load({})
    assert torch.equal(average.state()["average.weight"], model.weight), "a checkpoint without a mean starts it anew"


def test_smoothing_is_in_the_training_loss_and_not_in_the_evaluations(job: Make) -> None:
    """At a rate of nothing both runs have the same model."""
    plain, smooth = job("plain", learningRate=1e-12), job("smooth", learningRate=1e-12, labelSmoothing=0.5)
    assert [e["loss"] for e in smooth.events("evaluation")] == [e["loss"] for e in plain.events("evaluation")]
    differences = [a["loss"] - b["loss"] for a, b in zip(smooth.events("step"), plain.events("step"), strict=True)]
    assert max(map(abs, differences)) > 1e-4


def test_dropout_is_overridden_in_training_and_the_output_keeps_the_bases(job: Make) -> None:
    """At a rate of nothing only dropout tells the steps' losses apart."""
    off, plain = (job(name, learningRate=1e-12, dropout=p) for name, p in (("off", 0.0), ("plain", 0.1)))
    losses = [[e["loss"] for e in bench.events("step")] for bench in (off, plain)]
    assert losses[0] != losses[1]
    config = json.loads((off.folder / "out" / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.1, 0.1)
    default = job("default", learningRate=1e-12)
    assert [e["loss"] for e in default.events("step")] == losses[1], "0.1 is what the model has anyway"
