"""evaluation.folds: each fold is tuned and judged as in a job of its own, the result is that of a job without, and no
kill changes anything.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import Reason
from finetune_api.run import RunConfig, World
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.train import evaluation, folds, loop, out_of_fold, session
from finetune_trainer.train.skipped_rows import messages
from support.attempts import Bench, Flag
from support.jobs import job_config
from support.launch import run, start, until
from support.models import mails, topics, write_jsonl
from support.order import same_order

Make = Callable[..., Bench]
ROWS = 36


@pytest.fixture
def job(tmp_path: Path, bert: Path) -> Make:
    """Of 36 mails, with dropout; not run yet."""
    rows = write_jsonl(tmp_path / "train.jsonl", mails(ROWS, seed=1)).as_uri()

    def make(name: str, data: Any = None, folds: int = 0, training: Any = None, **spec: Any) -> Bench:
        bench = Bench(
            tmp_path / name,
            {
                "model": {"uri": bert.as_uri()},
                "data": {"train": {"uri": rows}} | (data or {}),
                "training": {
                    "epochs": 2,
                    "globalBatchSize": 8,
                    "learningRate": 3e-3,
                    "dropout": 0.1,
                    "maxLength": 32,
                    **(training or {}),
                },
                "evaluation": {"folds": {"count": folds}} if folds else {},
                "checkpoints": {"everySteps": 1, "keepLast": 2},
            }
            | spec,
        )
        bench.prepare()
        return bench

    return make


def rows_of(bench: Bench, split: str) -> list[dict[str, Any]]:
    config = bench.config()
    manifest, profile = load_profile(location(config.output.uri, config.storage))
    with Stream(config, manifest, profile, split) as stream:
        return list(stream.rows())


def predictions(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.folder / "out" / out_of_fold.NAME).read_text().splitlines()]


def losses(bench: Bench, fold: int | None = None) -> list[float]:
    return [event["loss"] for event in bench.events("step") if event.get("fold") == fold]


METHODS = {
    "full, with a running mean": {"training": {"emaDecay": 0.9, "weightDecay": 0.1}},
    "lora": {"method": {"type": "lora", "lora": {"rank": 2}}},
    "prompts": {"method": {"type": "prompt-tuning"}},
    "unfrozen by epochs": {"method": {"type": "freeze", "freeze": {"unfreeze": {"everyEpochs": 1}}}},
}


@pytest.mark.parametrize("spec", METHODS.values(), ids=METHODS)
def test_a_fold_comes_out_as_in_a_job_of_its_own(job: Make, tmp_path: Path, spec: dict[str, Any]) -> None:
    bench = job("folds", folds=2, **spec)
    bench.attempt()
    train, held = rows_of(bench, "train-but-2"), rows_of(bench, "fold-2")
    assert len(train) + len(held) == ROWS
    parts = {"train": train, "test": held}
    own = {n: {"uri": write_jsonl(tmp_path / f"own-{n}.jsonl", rows).as_uri()} for n, rows in parts.items()}
    alone = job("alone", data=own, **spec)
    test = alone.attempt().test
    assert test
    assert losses(bench, 2) == losses(alone), "the second round starts as a job does"
    judged = bench.metrics()["folds"]["metrics"][1]
    assert judged == {name: value for name, value in test.items() if name in judged}
    plain = job("plain", **spec)
    plain.attempt()
    assert losses(bench) == losses(plain), "so does the last one"
    for file in (plain.folder / "out").glob("*.safetensors"):
        assert bench.weights(file.name) == plain.weights(file.name)


def test_what_the_folds_came_to_is_told_everywhere(job: Make) -> None:
    bench = job("folds", folds=3, checkpoints={"everySteps": 100})
    report = bench.attempt()
    found, events = bench.metrics()["folds"], bench.events("fold")
    assert [event["fold"] for event in events] == [1, 2, 3]
    values = [event["accuracy"] for event in events]
    assert values == [metrics["accuracy"] for metrics in found["metrics"]]
    assert found["mean"]["accuracy"] == pytest.approx(statistics.mean(values))
    assert found["deviation"]["accuracy"] == pytest.approx(statistics.stdev(values))
    assert found["decided"] is None, "a class is the one with the highest score"

    steps = bench.events("step")
    assert [event["step"] for event in steps] == list(range(1, len(steps) + 1)), "steps go on over the rounds"
    assert report.progress is not None
    assert (report.progress.step, report.progress.percent, report.progress.part) == (len(steps), 100, "all rows")
    assert report.resolved is not None
    assert report.resolved.total_steps == len(steps)
    assert report.folds is not None
    assert (report.folds.done, report.folds.count) == (3, 3)
    assert (report.folds.metric, report.folds.mean) == ("macro-f1", found["mean"]["macro-f1"])
    assert (report.folds.deviation, report.folds.mean_loss) == (found["deviation"]["macro-f1"], found["mean"]["loss"])
    assert (report.folds.last, report.folds.last_loss) == (events[-1]["macro-f1"], events[-1]["loss"])

    answered = predictions(bench)
    assert [line["row"] for line in answered] == list(range(1, ROWS + 1)), "each row once, in the order of the file"
    assert [line["true"]["label"] for line in answered] == [row["label"] for row in mails(ROWS, seed=1)]
    for fold, (rows, metrics) in enumerate(zip(found["rows"], found["metrics"], strict=True), 1):
        own = [line for line in answered if line["fold"] == fold]
        right = [line["answer"]["label"] == line["true"]["label"] for line in own]
        assert (len(own), statistics.mean(right)) == (rows, pytest.approx(metrics["accuracy"]))
    right = [line["answer"]["label"] == line["true"]["label"] for line in answered]
    assert found["pooled"]["accuracy"] == pytest.approx(statistics.mean(right))
    assert found["pooled"]["accuracy-low"] < found["pooled"]["accuracy"] < found["pooled"]["accuracy-high"]

    for name in ("report.html", "README.md"):
        text = (bench.folder / "out" / name).read_text()
        assert "standard deviation" in text, name
        assert "No rows were held out" not in text, name
        assert out_of_fold.NAME in text, name


def test_rows_of_folds_that_cannot_be_judged_are_told_in_one_finding() -> None:
    told = messages({"train": 4, "fold-1": 1, "fold-2": 2, "validation": 5}, 16)
    assert [count for count, _ in told] == [4, 5, 3]
    assert told[0][1].startswith("4 training rows had nothing left to learn within maxLength 16 and weighed nothing")
    assert told[2][1].startswith("3 rows of folds had nothing left to learn within maxLength 16 and were left out")


class Killed(BaseException):
    """As SIGKILL: the attempt does nothing more."""


Hook = Callable[[pytest.MonkeyPatch], None]


def kill(owner: Any, name: str, *, call: int = 1, after: bool = False) -> Hook:
    """This call of the function, from 1, is the last thing that an attempt does, or the first that it does not do."""

    def hook(patch: pytest.MonkeyPatch) -> None:
        real, calls = getattr(owner, name), [0]

        def called(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] < call:
                return real(*args, **kwargs)
            if after:
                real(*args, **kwargs)
            raise Killed

        patch.setattr(owner, name, called)

    return hook


def summary(bench: Bench) -> Any:
    """All that an attempt may leave its mark on."""
    found = bench.metrics()
    kept = {name: found[name] for name in ("folds", "steps", "validation", "best")}
    return bench.events(), kept, predictions(bench), bench.weights()


def test_kills_between_two_rounds_and_within_one_change_nothing(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str) -> Bench:
        return job(name, folds=2, data={"validation": {"fraction": 0.2}}, training={"emaDecay": 0.9})

    undisturbed, bench = make("undisturbed"), make("killed")
    undisturbed.attempt()
    border = next(event["step"] for event in undisturbed.events("fold"))
    kills = {
        "before fold 1 is judged": kill(folds, "_decision"),
        "before its answers are stored": kill(folds, "store_answers"),
        "after that": kill(folds, "store_answers", after=True),
        "when the model is as at the start": kill(session.Session, "next_round", after=True),
        "after that is saved": kill(loop, "end_fold", after=True),
        "in the midst of round 2": kill(loop, "train_step", call=3, after=True),
        "in round 3, after its first evaluation": kill(evaluation, "take_metrics", after=True),
    }
    resumed: list[int | None] = []
    for number, hook in enumerate(kills.values(), 1):
        with monkeypatch.context() as patch:
            hook(patch)
            with pytest.raises(Killed):
                bench.attempt(number)
        resumed.append(bench.snapshot(number).resumed_from_step)
    assert resumed[5] == border, "what is judged is not judged again"
    assert not (bench.folder / "out" / "result.json").exists()
    bench.attempt(len(kills) + 1)
    assert summary(bench) == summary(undisturbed)
    stored = [path.relative_to(bench.folder / "out").as_posix() for path in bench.folder.glob("out/ckpt/folds/*/*")]
    assert len(stored) == 2, "what killed attempts stored is gone"


def test_a_stop_in_the_midst_of_judging_a_fold_is_a_stop_after_its_last_step(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, bench = job("undisturbed", folds=2), job("stopped", folds=2)
    undisturbed.attempt()
    for number, place in enumerate((evaluation.Evaluator.judge, out_of_fold._round), 1):
        flag, real = Flag(), place

        def stopped(*args: Any, flag: Flag = flag, real: Any = real, **more: Any) -> Any:
            flag.up = True
            return real(*args, **more)

        owner = evaluation.Evaluator if number == 1 else out_of_fold
        with monkeypatch.context() as patch:
            patch.setattr(owner, place.__name__, stopped)
            assert bench.failing(number, flag).reason is Reason.INTERRUPTED
    assert bench.attempt(3).resumed_from_step == next(event["step"] for event in undisturbed.events("fold"))
    assert [event["step"] for event in bench.events("step")] == [event["step"] for event in undisturbed.events("step")]
    assert predictions(bench) == predictions(undisturbed)
    assert bench.weights() == undisturbed.weights()


def test_thresholds_of_a_fold_are_chosen_on_the_validation_rows(
    job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"train": topics(40, seed=1), "validation": topics(40, seed=2)}
    data = {name: {"uri": write_jsonl(tmp_path / f"{name}.jsonl", rows).as_uri()} for name, rows in parts.items()}
    chosen: list[Any] = []
    real = evaluation.Evaluator.judge

    def judge(evaluator: Any, split: str, step: int, decision: Any = evaluation.NONE, **more: Any) -> Any:
        tally = real(evaluator, split, step, decision, **more)
        chosen.append((split, decision if split != "validation" else tally.decision()))
        return tally

    monkeypatch.setattr(evaluation.Evaluator, "judge", judge)
    several = {"task": "multi-label-classification", "training": {"maxSteps": 4}, "folds": 2}
    bench = job("chosen", data=data, **several)
    bench.attempt()
    at = [i for i, (split, _) in enumerate(chosen) if split.startswith("fold-")]
    assert [chosen[i - 1] for i in at] == [("validation", chosen[i][1]) for i in at]
    assert chosen[at[0]][1] != chosen[at[1]][1]
    assert "was chosen for each fold" in bench.metrics()["folds"]["decided"]
    chosen.clear()
    left = job("left", data={"train": data["train"]}, **several)
    left.attempt()
    assert chosen[:2] == [("fold-1", {"thresholds": None}), ("fold-2", {"thresholds": None})]
    assert "was not chosen" in left.metrics()["folds"]["decided"]


def test_ranks_killed_between_two_rounds_end_like_ranks_that_were_not(bert: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "train.jsonl", mails(ROWS, seed=1)).as_uri()
    world = World(processes_per_worker=2, device="cpu", threads_per_process=1, timeout_seconds=60)

    def config(name: str, attempt: int = 1) -> RunConfig:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return job_config(
            folder,
            attempt=attempt,
            world=world,
            model={"uri": bert.as_uri()},
            data={"train": {"uri": rows}},
            training={"epochs": 2, "globalBatchSize": 8, "learningRate": 3e-3, "maxLength": 32},
            evaluation={"folds": {"count": 2}},
            checkpoints={"everySteps": 100, "keepLast": 1},
        )

    with same_order():
        assert run("prepare", config("undisturbed")) == 0
        assert run("prepare", config("killed")) == 0
    assert run("launch", config("undisturbed")) == 0
    undisturbed, killed = (Bench(tmp_path / name, {}) for name in ("undisturbed", "killed"))
    border = next(event["step"] for event in undisturbed.events("fold"))
    first = start("launch", config("killed"))
    until(lambda: list((tmp_path / "killed" / "out" / "ckpt").glob(f"*/{border}/MANIFEST.json")))
    first.kill()
    assert not (tmp_path / "killed" / "out" / "result.json").exists(), "killed too late to show anything"
    last = start("launch", config("killed", attempt=2))
    assert last.wait() == 0, last.log.read_text()
    assert last.outcome.resumed_from_step == border
    assert summary(killed) == summary(undisturbed)
    assert [line["row"] for line in predictions(killed)] == list(range(1, ROWS + 1))
