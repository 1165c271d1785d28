"""A method is one value and one row: one that stands in this folder alone is checked, trained, resumed and exported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import finetune_api.method
from finetune_api.exits import Reason
from finetune_api.run import RunConfig
from finetune_trainer import prepare
from finetune_trainer.methods import registry
from methods import biases
from support.attempts import Bench
from support.models import mails, write_jsonl

STEPS = 30


@dataclass
class OwnBench(Bench):
    """The contract knows its own methods only, so the name is put in behind its check."""

    def config(self, attempt: int = 1) -> RunConfig:
        config = super().config(attempt)
        method = config.method.model_copy(update={"type": biases.INFO.name})
        return config.model_copy(update={"method": method, "output": config.output.model_copy(update={"merge": True})})


Make = Callable[..., OwnBench]


@pytest.fixture
def make(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A bench to which the method is known."""
    monkeypatch.setitem(finetune_api.method.METHODS, biases.INFO.name, biases.INFO)
    monkeypatch.setitem(registry.METHODS, biases.INFO.name, biases.METHOD)
    train = write_jsonl(tmp_path / "train.jsonl", mails(120, seed=1))

    def bench(name: str, **spec: Any) -> OwnBench:
        plain: dict[str, Any] = {
            "model": {"uri": bert.as_uri()},
            "data": {"train": {"uri": train.as_uri()}, "test": {"fraction": 0.1}},
            "training": {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2},
            "checkpoints": {"everySteps": 10},
            "output": {"uri": (tmp_path / name / "out").as_uri()},
        }
        return OwnBench(tmp_path / name, plain | spec)

    return bench


def interrupted(bench: OwnBench) -> int:
    """The step at which a first attempt stopped."""
    calls = iter(range(10_000))
    assert bench.failing(1, stop=lambda: next(calls) > 60).reason is Reason.INTERRUPTED
    progress = bench.snapshot(1).progress
    assert progress is not None
    assert 0 < progress.step < STEPS
    return progress.step


def test_it_trains_and_writes_what_it_says(make: Make, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    bench = make("run")
    bench.prepare()
    report = bench.attempt()
    assert len(bench.events("step")) == STEPS
    assert report.resolved is not None
    written = load_file(bench.folder / "out" / biases.FILE)
    assert report.resolved.trainable_parameters == sum(tensor.numel() for tensor in written.values())
    before, after = load_file(bert / "model.safetensors"), load_file(bench.folder / "out/merged/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[f"bert.{name}"])}
    assert changed == {name for name in before if name.endswith(".bias") or name.startswith("pooler.")}
    assert not (bench.folder / "out" / "model.safetensors").exists()
    assert bench.metrics()["method"] == "biases"
    assert "(biases)" in (bench.folder / "out" / "report.html").read_text()

    card = (bench.folder / "out" / "README.md").read_text()
    assert 'library_name: "biases"' in card
    assert "(biases only)" in card
    assert "it needs no biases." in card
    code = card.split("```python\n")[1].split("```")[0].replace('"model"', f'"{bench.folder}/out"')
    scope: dict[str, Any] = {"print": lambda *_: None}
    exec(compile(code, "card", "exec"), scope)
    tokenizer = AutoTokenizer.from_pretrained(bench.folder / "out")
    merged = AutoModelForSequenceClassification.from_pretrained(bench.folder / "out" / "merged")
    inputs = tokenizer("meeting report", return_tensors="pt")
    with torch.inference_mode():
        assert torch.allclose(scope["model"].eval()(**inputs).logits, merged.eval()(**inputs).logits, atol=1e-6)


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_been(make: Make) -> None:
    whole = make("whole")
    whole.prepare()
    whole.attempt()
    broken = make("broken")
    broken.prepare()
    stopped = interrupted(broken)
    assert broken.attempt(2).resumed_from_step == stopped
    assert broken.events("step") == whole.events("step")
    assert broken.weights(biases.FILE) == whole.weights(biases.FILE)


def test_a_checkpoint_of_other_settings_is_refused_by_the_name_of_the_setting(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make("run")
    bench.prepare()
    interrupted(bench)
    other = dataclasses.replace(biases.METHOD, defaults=biases.Biases("attention"))
    monkeypatch.setitem(registry.METHODS, biases.INFO.name, other)
    error = bench.failing(2)
    assert error.reason is Reason.CHECKPOINT_MISMATCH
    assert f"{biases.FIELD} is 'attention', the checkpoint's is 'all'" in error.message


def test_a_model_that_it_does_not_fit_is_refused_before_workers_start(make: Make, llama: Path) -> None:
    bench = make("run", model={"uri": llama.as_uri()})
    bench.folder.mkdir()
    assert prepare.main(bench.config()) != 0
    assert json.loads((bench.folder / "termination").read_text())["problem"]["field"] == biases.FIELD


def test_weights_of_its_kind_that_no_job_wrote_are_not_overwritten(make: Make) -> None:
    bench = make("run")
    (bench.folder / "out").mkdir(parents=True)
    (bench.folder / "out" / biases.FILE).write_bytes(b"someone's")
    assert prepare.main(bench.config()) != 0
    said = json.loads((bench.folder / "termination").read_text())["problem"]
    assert said["reason"] == Reason.OUTPUT_IN_USE
    assert biases.FILE in said["message"]


def test_its_packages_are_recorded(make: Make) -> None:
    from finetune_trainer.checkpoint import environment

    bench = make("run")
    assert "safetensors" in environment(world_size=1, threads=1, micro_batch=1)
    assert bench.config().method.type == "biases"
