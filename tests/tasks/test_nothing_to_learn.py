"""I8: rows of which nothing can be learned are counted and told; where there are no others, the job fails with that
reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import Reason
from finetune_trainer.train.data import TrainingData
from support.attempts import Bench
from support.models import write_jsonl

Make = Callable[..., Bench]


def rows(good: int, hopeless: int) -> list[dict[str, str]]:
    """Prompts with completions; a hopeless row's prompt alone is longer than maxLength."""
    mixed = [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(good)]
    for n in range(hopeless):
        mixed.insert(n * 2, {"prompt": f"{n} " * 60, "completion": "never seen"})
    return mixed


@pytest.fixture
def make(tmp_path: Path, llama: Path) -> Make:
    def job(train: list[Any], validation: list[Any], test: list[Any], **training: Any) -> Bench:
        files = {"train": train, "validation": validation, "test": test}
        found = {
            name: {"uri": write_jsonl(tmp_path / f"{name}.jsonl", content).as_uri()} for name, content in files.items()
        }
        bench = Bench(
            tmp_path,
            {
                "task": "causal-lm",
                "model": {"uri": llama.as_uri()},
                "data": found,
                "training": {"epochs": 2, "globalBatchSize": 4, "maxLength": 48, **training},
            },
        )
        bench.prepare()
        return bench

    return job


def test_hopeless_rows_are_counted_in_every_split(make: Make) -> None:
    bench = make(rows(10, 6), rows(5, 3), rows(4, 2))
    report = bench.attempt()
    assert report.data is not None
    told = {f.message.split(" rows")[0]: f.count for f in report.data.findings if "maxLength 48" in f.message}
    assert told["12 training"] == 12, "six rows, two epochs"
    assert told["3 validation"] == 3
    assert told["2 test"] == 2
    assert bench.metrics()["test"]["loss"] > 0
    page = (bench.folder / "out" / "report.html").read_text()
    assert "3 validation rows had nothing left to learn" in page


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_held_out_split_of_hopeless_rows_is_refused_before_training(make: Make, split: str) -> None:
    hopeless = (rows(4, 0), rows(0, 4)) if split == "test" else (rows(0, 4), rows(4, 0))
    with pytest.raises(AssertionError, match=rf"NothingToLearn.*{split}\.jsonl:1: nothing is left to learn"):
        make(rows(8, 0), *hopeless)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_held_out_split_that_only_seemed_to_have_others_is_an_error(
    make: Make, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(rows(8, 0), *([{"prompt": name, "completion": "x"}] * 4 for name in ("validation", "test")))
    encode = TrainingData.encode
    monkeypatch.setattr(
        TrainingData, "encode", lambda self, row, *where: () if row["prompt"] == split else encode(self, row, *where)
    )
    error = bench.failing()
    assert error.reason is Reason.NOTHING_TO_LEARN
    assert error.message.startswith(f"none of the 4 {split} rows")
    assert error.field == "spec.training.maxLength"


def test_an_epoch_that_teaches_nothing_ends_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(rows(10, 0), rows(4, 0), rows(4, 0))
    encode = TrainingData.encode
    monkeypatch.setattr(
        TrainingData,
        "encode",
        lambda self, row, number=0, epoch=None: () if epoch is not None else encode(self, row, number),
    )
    error = bench.failing()
    assert error.reason is Reason.NOTHING_TO_LEARN
    assert error.message.startswith("none of the 10 training rows")
    assert bench.snapshot().progress.step == 2, "at the end of the first epoch, of three steps"  # type: ignore[union-attr]


def test_any_other_error_of_a_row_is_not_taken_for_nothing_to_learn(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(rows(10, 0), rows(4, 0), rows(4, 0))

    def broken(*args: Any) -> Any:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("finetune_trainer.tasks.causal_lm.encode_completion", broken)
    with pytest.raises(ValueError, match="a fault of ours"):
        bench.attempt()
