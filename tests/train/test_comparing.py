"""Few rows that are compared with each other: classes come apart, the head is the best one for where they lie, and
neither a stop nor a second rank changes which rows are compared.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_trainer.batches.group_example import GroupExample
from finetune_trainer.methods import method_for
from finetune_trainer.storage import location
from finetune_trainer.stream import Cursor, load_profile
from finetune_trainer.tasks.registry import task_of
from finetune_trainer.train import session
from finetune_trainer.train.comparison import Comparison
from finetune_trainer.train.data import TrainingData
from support.attempts import Bench, Flag
from support.models import mails, tiny_bert, write_jsonl

SPEC: dict[str, Any] = {
    "method": {"type": "setfit"},
    "training": {"epochs": 6, "learningRate": 1e-3, "seed": 3},
    "evaluation": {"everySteps": 8},
    "checkpoints": {"everySteps": 4, "keepLast": 2},
}


def few(per_class: int, seed: int) -> list[dict[str, Any]]:
    """So many of each class."""
    rows = mails(20 * per_class, seed=seed)
    return [row for name in ("ham", "spam") for row in [r for r in rows if r["label"] == name][:per_class]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("few")
    return {
        "model": {"uri": tiny_bert(folder / "model").as_uri()},
        "data": {
            "train": {"uri": write_jsonl(folder / "train.jsonl", few(8, seed=1)).as_uri()},
            "validation": {"uri": write_jsonl(folder / "validation.jsonl", mails(30, seed=2)).as_uri()},
            "test": {"uri": write_jsonl(folder / "test.jsonl", mails(60, seed=3)).as_uri()},
        },
    }


def bench(folder: Path, inputs: dict[str, Any], **spec: Any) -> Bench:
    made = Bench(folder, SPEC | inputs | spec)
    made.prepare()
    return made


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = bench(tmp_path_factory.mktemp("undisturbed"), inputs)
    made.attempt()
    return made


def test_classes_come_apart_and_rows_that_were_never_seen_are_told_apart(undisturbed: Bench) -> None:
    steps = undisturbed.events("step")
    assert [e["step"] for e in steps] == list(range(1, 25))
    losses = [e["loss"] for e in steps]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert undisturbed.metrics()["test"]["macro-f1"] > 0.8
    judged = undisturbed.events("evaluation")
    assert [e["step"] for e in judged] == [8, 16, 24]
    assert max(e["macro-f1"] for e in judged) > 0.8, "the head is fitted before it is judged"
    resolved = undisturbed.snapshot().resolved
    assert resolved is not None
    assert (resolved.total_steps, resolved.global_batch_size) == (24, 4)
    head = load_file(undisturbed.folder / "out" / "head.safetensors")
    assert head["output.weight"].abs().max() > 0.1, "no longer what the seed drew"


@pytest.mark.parametrize("step", [3, 8, 13, 24])
def test_a_stop_anywhere_changes_nothing(
    undisturbed: Bench, inputs: dict[str, Any], tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between evaluations, at one, and behind the last step, where only the fit and the export are left."""
    again, flag = bench(tmp_path / "job", inputs), Flag()
    real = session.TrainingProgress.stepped

    def stepped(self: Any, made: int, *args: Any, **kwargs: Any) -> None:
        flag.up = made == step
        real(self, made, *args, **kwargs)

    monkeypatch.setattr(session.TrainingProgress, "stepped", stepped)
    assert "told to stop" in str(again.failing(1, flag))
    monkeypatch.undo()
    assert again.attempt(2).resumed_from_step == step
    assert again.events() == undisturbed.events()
    for name in ("model.safetensors", "head.safetensors"):
        assert again.weights(name) == undisturbed.weights(name)
    assert again.metrics()["test"] == undisturbed.metrics()["test"]


def data_of(bench: Bench, rank: int = 0, size: int = 1) -> TrainingData:
    config = bench.config()
    manifest, profile = load_profile(location(config.output.uri, config.storage))
    task = task_of(config)
    tokenizer = task.processor.load(Path(config.model.uri.removeprefix("file://")), None)
    return TrainingData(config, manifest, profile, task, tokenizer, rank, size)


def compared(bench: Bench, rank: int = 0, size: int = 1, steps: int = 8) -> list[list[GroupExample]]:
    """The groups of a rank in each of the first steps."""
    data = data_of(bench, rank, size)
    lesson = method_for(data.config.method).lesson
    assert lesson is not None
    found = Comparison(data, lesson, "train")
    with data.stream("train") as stream:
        batches = [batch for batch, _ in itertools.islice(stream.batches(Cursor()), steps)]
    laid_out = [found.rank_batch(batch.indices[rank::size], batch.epoch) for batch in batches]
    return [[e for micro in step.batches for e in micro.examples] for step in laid_out]


def test_any_number_of_ranks_compares_the_same_rows(undisturbed: Bench) -> None:
    def texts(groups: list[GroupExample]) -> Counter[str]:
        return Counter(str([(m.input_ids, c) for m, c in zip(g.members, g.classes, strict=True)]) for g in groups)

    alone, parts = compared(undisturbed), [compared(undisturbed, rank, 3) for rank in range(3)]
    assert all(len(step) == 4 for step in alone)
    for step, whole in enumerate(alone):
        assert texts(whole) == sum((texts(part[step]) for part in parts), Counter())
    first, second = Counter(), Counter()
    for step in alone[:4]:
        first += texts(step)
    for step in alone[4:]:
        second += texts(step)
    assert len(first) == 16, "a pass compares each row"
    assert first != second, "and each pass with others"


def test_groups_have_two_rows_of_each_class_and_fit_the_micro_batch(undisturbed: Bench) -> None:
    for step in compared(undisturbed):
        for group in step:
            assert sorted(Counter(group.classes).values()) == [2, 2]
            assert len({tuple(m.input_ids) for m in group.members}) == 4
            assert group.tokens == sum(m.length for m in group.members)


def test_the_head_is_the_best_one_whatever_was_judged_before(
    inputs: dict[str, Any], undisturbed: Bench, tmp_path: Path
) -> None:
    """Without validation rows nothing is judged until the end; the weights of the last step and their head are the
    same, if that step was the best of the other run, too."""
    data = {name: source for name, source in inputs["data"].items() if name != "validation"}
    keep_last = bench(tmp_path / "judged", inputs, checkpoints={"keepBest": False})
    never = bench(tmp_path / "never", inputs | {"data": data}, evaluation={})
    keep_last.attempt()
    never.attempt()
    for name in ("model.safetensors", "head.safetensors"):
        assert never.weights(name) == keep_last.weights(name)


def test_a_fold_is_judged_by_a_model_and_a_head_that_have_not_seen_it(inputs: dict[str, Any], tmp_path: Path) -> None:
    data = {"train": inputs["data"]["train"]}
    made = bench(tmp_path / "folds", inputs | {"data": data}, evaluation={"folds": {"count": 2}})
    found, lesson = data_of(made), method_for(made.config().method).lesson
    assert lesson is not None
    seen = {str(m.input_ids) for n in range(8) for m in Comparison(found, lesson, "train-but-1").group(n, 0)[0].members}
    with found.stream("fold-1") as stream:
        judged = {str(found.encode(row)[0].input_ids) for row in stream.rows()}
    assert len(judged) == 8
    assert not seen & judged
    made.attempt()
    folds = made.events("fold")
    assert [e["fold"] for e in folds] == [1, 2]
    assert all(e["macro-f1"] > 0.7 for e in folds), folds


def test_a_running_mean_has_a_head_of_its_own(inputs: dict[str, Any], tmp_path: Path) -> None:
    made = bench(tmp_path / "mean", inputs, training=SPEC["training"] | {"emaDecay": 0.9})
    report = made.attempt()
    assert report.test is not None
    assert report.test["macro-f1"] > 0.7


def test_rows_of_a_class_with_one_row_only_are_learned_from(inputs: dict[str, Any], tmp_path: Path) -> None:
    rows = [*few(3, seed=5), {"text": "call the parking office", "label": "other"}]
    train = {"uri": write_jsonl(tmp_path / "train.jsonl", rows).as_uri()}
    made = bench(tmp_path / "job", inputs | {"data": {"train": train}}, evaluation={})
    made.attempt()
    head = load_file(made.folder / "out" / "head.safetensors")
    assert head["output.weight"].shape[0] == 3
    assert torch.isfinite(head["output.weight"]).all()
