"""Where only upper parts are trained, the frozen part runs once a row; what comes out is as if it ran each time."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import Reason
from finetune_trainer.batches.example import ClassExample, Example, TextExample
from finetune_trainer.tasks import text_classification
from finetune_trainer.train import frozen_trunk, out_of_fold
from finetune_trainer.trunk import kept_rows
from finetune_trainer.trunk.cut import LayersCut, PooledCut
from support.attempts import Bench, Flag
from support.models import mails, write_jsonl

Make = Callable[..., Bench]
ROWS, EPOCHS = 90, 3


@pytest.fixture
def freezing(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A job of three epochs on chunks of 16 rows, with dropout in what is trained."""
    monkeypatch.setattr(kept_rows, "ROWS", 16)
    rows = write_jsonl(tmp_path / "rows.jsonl", mails(ROWS, seed=3))

    def make(name: str, last_layers: int = 0, **spec: Any) -> Bench:
        plain: dict[str, Any] = {
            "model": {"uri": bert.as_uri()},
            "data": {"train": {"uri": rows.as_uri()}, "validation": {"fraction": 0.2}, "test": {"fraction": 0.2}},
            "method": {"type": "freeze", "freeze": {"lastLayers": last_layers}},
            "training": {"epochs": EPOCHS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2},
            "evaluation": {"everySteps": 5},
        }
        bench = Bench(tmp_path / name, plain | spec)
        bench.prepare()
        return bench

    return make


def chunks(bench: Bench) -> dict[str, bytes]:
    """What they hold, behind the line with the key of the job."""
    found = {path.name: path.read_bytes() for path in folder(bench).glob("*/*.chunk")}
    return {name: content.partition(b"\n")[2] for name, content in found.items()}


def answers(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.folder / "out" / out_of_fold.NAME).read_text().splitlines()]


def folder(bench: Bench) -> Path:
    return bench.folder / "scratch" / frozen_trunk.FOLDER


def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each pass through the whole frozen part has."""
    seen: list[int] = []
    for kind in (LayersCut, PooledCut):
        monkeypatch.setattr(kind, "computed", _counted(kind.computed, seen))
    return seen


def _counted(real: Callable[..., Any], seen: list[int]) -> Callable[..., Any]:
    def computed(cut: Any, inputs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        return real(cut, inputs)

    return computed


METHODS: dict[str, dict[str, Any]] = {
    "head": {"type": "freeze"},
    "last layer": {"type": "freeze", "freeze": {"lastLayers": 1}},
    "features": {"type": "features", "features": {"pooling": "mean", "head": "mlp"}},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_results_are_those_of_a_run_that_keeps_nothing(
    freezing: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    cached, seen = freezing("cached", method=METHODS[method]), passes(monkeypatch)
    report = cached.attempt()
    rows = report.data.train_rows + report.data.validation_rows
    assert sum(seen) == rows, "each row passes through the frozen part once"
    assert report.resolved.frozen_trunk == f"cached, {rows} rows, 1 MiB"
    plain = freezing("plain", method=METHODS[method])
    monkeypatch.setattr(frozen_trunk, "worth_keeping", lambda data: [])
    assert plain.attempt().resolved.frozen_trunk is None
    ours, theirs = (load_file(bench.folder / "out" / "model.safetensors") for bench in (cached, plain))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    assert cached.metrics()["test"] == pytest.approx(plain.metrics()["test"], rel=1e-4)
    assert len(cached.events("evaluation")) > 3
    steps = [[event["loss"] for event in bench.events("step")] for bench in (cached, plain)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)
    assert [event["tokens"] for event in cached.events("step")] == [event["tokens"] for event in plain.events("step")]


def test_all_folds_are_served_by_what_was_kept_of_the_training_rows(
    freezing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: dict[str, Any] = {
        "evaluation": {"everySteps": 100, "folds": {"count": 3}},
        "training": {"epochs": 1, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2},
    }
    cached, seen = freezing("cached", **spec), passes(monkeypatch)
    with monkeypatch.context() as patch:
        patch.delattr(text_classification, "asked")  # no row is asked the whole way again
        report = cached.attempt()
    assert sum(seen) == report.data.train_rows
    plain = freezing("plain", **spec)
    monkeypatch.setattr(frozen_trunk, "worth_keeping", lambda data: [])
    plain.attempt()
    ours, theirs = (bench.events("fold") for bench in (cached, plain))
    assert len(ours) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, rel=1e-4)
    answered, expected = (answers(bench) for bench in (cached, plain))
    assert len(answered) == report.data.train_rows
    for one, other in zip(answered, expected, strict=True):
        scores, others = one["answer"].pop("scores"), other["answer"].pop("scores")
        assert scores == pytest.approx(others, abs=1e-4)
        assert one["answer"].pop("score") == pytest.approx(other["answer"].pop("score"), abs=1e-4)
        assert one == other


def test_chunks_made_again_have_the_same_bits_and_so_has_the_result(
    freezing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = freezing("whole", 1)
    whole.attempt()
    first = chunks(whole)
    again, flag = freezing("again", 1), Flag()
    real, left = kept_rows.KeptRows.write, [3]

    def write(rows: Any, chunk: int, content: Any) -> int:
        left[0] -= 1
        flag.up = left[0] == 0
        return real(rows, chunk, content)

    monkeypatch.setattr(kept_rows.KeptRows, "write", write)
    stopped = again.failing(1, flag)
    assert stopped.reason is Reason.INTERRUPTED
    kept = chunks(again)
    assert len(kept) == 3
    assert kept.items() <= first.items()
    torn, foreign, gone = sorted(folder(again).glob("*/*.chunk"))
    torn.write_bytes(torn.read_bytes()[:-70])
    foreign.write_bytes(foreign.read_bytes().replace(b'"key": "', b'"key": "f', 1))
    gone.unlink()
    flag.up = False
    again.attempt(2)
    assert chunks(again) == first
    assert again.weights() == whole.weights()
    assert again.metrics()["test"] == whole.metrics()["test"]


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "would take about 0 MiB in scratch, where 0 MiB may be taken": lambda patch: patch.setattr(
        frozen_trunk, "SHARE", 1e-12
    ),
    "found no space in": lambda patch: _third_write_fails(patch),
    "takes more than": lambda patch: patch.setattr(frozen_trunk, "space", lambda data, needed: 3000),
    "with what was kept the model gives something else": lambda patch: patch.setattr(LayersCut, "tried", _wrong),
    "ClassExample does not tell what is left of it": lambda patch: patch.setattr(ClassExample, "lean", Example.lean),
    "what is left of its rows cannot be stored": lambda patch: patch.setattr(ClassExample, "lean", _with_an_array),
}
PLAIN_TRIED = LayersCut.tried


def _third_write_fails(patch: pytest.MonkeyPatch) -> None:
    real, left = kept_rows.write_chunk, [2]

    def write(*arguments: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(*arguments)

    patch.setattr(kept_rows, "write_chunk", write)


def _with_an_array(example: ClassExample, places: slice) -> ClassExample:
    return dataclasses.replace(TextExample.lean(example, places), label=np.int64(example.label))


def _wrong(cut: LayersCut, inputs: Any) -> list[torch.Tensor]:
    return [tensor + 0.1 for tensor in PLAIN_TRIED(cut, inputs)]


def test_what_cannot_be_kept_is_computed_as_ever_and_one_finding_says_so(
    freezing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = freezing("plain")
    with monkeypatch.context() as patch:
        patch.setattr(frozen_trunk, "worth_keeping", lambda data: [])
        plain.attempt()
    for number, (why, break_it) in enumerate(FAULTS.items()):
        bench = freezing(f"broken-{number}")
        with monkeypatch.context() as patch:
            break_it(patch)
            report = bench.attempt()
        (finding,) = [f for f in report.data.findings if f.kind == "FrozenTrunkNotCached"]
        assert why in finding.message
        assert report.resolved.frozen_trunk is None
        assert not chunks(bench)
        assert bench.weights() == plain.weights()
        assert bench.metrics()["test"] == plain.metrics()["test"]


SETTINGS: list[tuple[dict[str, Any], int]] = [
    ({"method": {"type": "full"}}, 0),
    ({"method": {"type": "lora"}}, 0),
    ({"method": {"type": "freeze", "freeze": {"evalTrunk": False}}}, 0),
    ({"method": {"type": "freeze", "freeze": {"unfreeze": {"everySteps": 5}}}}, 0),
    ({"method": {"type": "freeze", "freeze": {"trainable": ["embeddings"]}}}, 0),
    ({"training": {"epochs": 1, "globalBatchSize": 8}, "evaluation": {"everySteps": 100}}, 0),
    ({"training": {"epochs": 1, "globalBatchSize": 8}}, 1),
    ({}, 2),
]


@pytest.mark.parametrize(("spec", "splits"), SETTINGS)
def test_only_what_passes_through_frozen_layers_more_than_once_is_kept(
    freezing: Make, spec: dict[str, Any], splits: int
) -> None:
    bench = freezing("job", **spec)
    report = bench.attempt()
    assert len({name.split("-")[0] for name in chunks(bench)}) == splits
    assert (report.resolved.frozen_trunk is not None) == (splits > 0)
    assert not [f for f in report.data.findings if f.kind == "FrozenTrunkNotCached"]
