"""The mean of the best checkpoints is the output where it is no worse than the best alone, also after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import Reason
from finetune_trainer.train import evaluation
from support.attempts import Bench, Flag
from support.models import mails, write_jsonl

Make = Callable[..., Bench]


@pytest.fixture
def job(tmp_path: Path, bert: Path) -> Make:
    """Six evaluations of a run at a rate that is a little too high; not run yet."""
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1)).as_uri()
    held_out = write_jsonl(tmp_path / "held-out.jsonl", mails(40, seed=2)).as_uri()

    def make(name: str, **training: Any) -> Bench:
        bench = Bench(
            tmp_path / name,
            {
                "model": {"uri": bert.as_uri()},
                "data": {"train": {"uri": train}, "validation": {"uri": held_out}},
                "training": {"maxSteps": 12, "globalBatchSize": 8, "learningRate": 1e-2, "schedule": "constant"}
                | training,
                "evaluation": {"everySteps": 2, "metric": "loss"},
                "checkpoints": {"everySteps": 100, "keepLast": 1, "averageBest": 3},
            },
        )
        bench.prepare()
        return bench

    return make


def kept(bench: Bench) -> dict[int, dict[str, torch.Tensor]]:
    """Step -> what its checkpoint holds, of the newest generation that has it."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    for folder in sorted((bench.folder / "out" / "ckpt").glob("*/*"), key=lambda path: int(path.parent.name)):
        tensors = {}
        for path in folder.glob("*.safetensors"):
            tensors |= load_file(path)
        found[int(folder.name)] = tensors
    return found


@pytest.mark.parametrize("training", [{}, {"emaDecay": 0.5}], ids=["weights", "running means"])
def test_the_mean_of_the_best_is_the_output_where_it_is_no_worse(
    job: Make, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any]
) -> None:
    bench, judged, real = job("mean", **training), [], evaluation.Evaluator.judge

    def judge(evaluator: Any, split: str, step: int, *more: Any, **named: Any) -> Any:
        tally = real(evaluator, split, step, *more, **named)
        if split == "validation" and not named.get("worst"):
            judged.append(tally.metrics()["loss"])
        return tally

    monkeypatch.setattr(evaluation.Evaluator, "judge", judge)
    bench.attempt()
    events = bench.events("evaluation")
    assert len(judged) == len(events) + 1, "the mean is judged too"
    best = sorted(events, key=lambda e: e["loss"])[:3]
    steps = sorted(e["step"] for e in best)
    checkpoints = kept(bench)
    assert set(steps) <= set(checkpoints) <= {*steps, 12}
    prefix = "average." if training else "model."
    output = load_file(bench.folder / "out" / "model.safetensors")
    if judged[-1] <= best[0]["loss"]:
        expected = {n: sum(checkpoints[step][prefix + n].double() for step in steps) / 3 for n in output}
        said = f"The weights are the mean of those of steps {', '.join(map(str, steps))}: loss {judged[-1]:.4g}"
    else:
        expected = {n: checkpoints[best[0]["step"]][prefix + n] for n in output}
        said = "was worse, so it is not the output"
    assert all(torch.allclose(output[n].double(), expected[n].double(), rtol=0, atol=1e-7) for n in output)
    assert said in (bench.folder / "out" / "report.html").read_text()
    assert f"of the best alone {best[0]['loss']:.4g}" in (bench.folder / "out" / "report.html").read_text()
    card = (bench.folder / "out" / "README.md").read_text()
    assert ("The weights are the mean" in card) == (judged[-1] <= best[0]["loss"])


@pytest.mark.parametrize("worse", [True, False])
def test_which_is_left_is_decided_on_the_validation_rows(
    job: Make, monkeypatch: pytest.MonkeyPatch, worse: bool
) -> None:
    """The last judgement, of the mean, is planted."""
    bench, real, calls = job("planted"), evaluation.Evaluator.judge, []

    def judge(evaluator: Any, split: str, step: int, *more: Any, **named: Any) -> Any:
        tally = real(evaluator, split, step, *more, **named)
        calls.append(step)
        if len(calls) == 7:
            metrics = tally.metrics()
            tally.metrics = lambda: metrics | {"loss": 9.0 if worse else 0.0}
        return tally

    monkeypatch.setattr(evaluation.Evaluator, "judge", judge)
    bench.attempt()
    best = min(bench.events("evaluation"), key=lambda e: e["loss"])["step"]
    output, alone = load_file(bench.folder / "out" / "model.safetensors"), kept(bench)[best]
    assert all(torch.equal(output[n], alone[f"model.{n}"]) for n in output) is worse


def test_a_stopped_run_averages_the_same(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = job("whole"), job("stopped")
    whole.attempt()
    flag, real, left = Flag(), evaluation.evaluate, [3]

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        flag.up = left[0] == 0
        left[0] -= 1
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", evaluate)
        assert stopped.failing(1, flag).reason is Reason.INTERRUPTED
    stopped.attempt(2)
    assert stopped.events() == whole.events()
    assert stopped.weights() == whole.weights()
