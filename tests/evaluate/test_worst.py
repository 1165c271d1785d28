"""The rows that are most wrong are those that a look at all finds, however they are cut into batches and ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.batches.example import PlainExample
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.class_tally import ClassTally
from finetune_trainer.evaluate.multi_label_tally import MultiLabelTally
from finetune_trainer.evaluate.regression_tally import RegressionTally
from finetune_trainer.evaluate.token_tally import TokenTally
from finetune_trainer.evaluate.top_tally import TopTally
from finetune_trainer.evaluate.worst import Kept, Worst
from finetune_trainer.objectives.base import Losses

MOST = 5
ABC = tuple("abcdefgh")


class Rank:
    """One of several whose sums are those that the test gives."""

    def __init__(self, rank: int, size: int, total: list[float] | None = None) -> None:
        self.rank, self.size, self.seen, self._total = rank, size, list[float](), total

    def sum(self, values: Sequence[float]) -> list[float]:
        self.seen = [*values]
        return self._total or self.seen


def merged(worst: Sequence[Worst]) -> list[Kept]:
    """As all ranks have it."""
    size = len(worst)
    own = []
    for rank, each in enumerate(worst):
        asked = Rank(rank, size)
        each.merged(asked)  # type: ignore[arg-type]
        own.append(asked.seen)
    total = np.sum(own, axis=0).tolist()
    found = [each.merged(Rank(rank, size, total)) for rank, each in enumerate(worst)]  # type: ignore[arg-type]
    assert all(each == found[0] for each in found)
    return found[0]


def judged(
    make: Callable[[], Any], kinds: Sequence[str], outputs: torch.Tensor, labels: torch.Tensor, ranks: int, size: int
) -> list[Kept]:
    """Row n goes to rank n % ranks, in micro-batches of any order."""
    worst = [Worst(kinds, MOST) for _ in range(ranks)]
    for rank, own in enumerate(worst):
        tally, rows = make(), torch.arange(rank, len(labels), ranks)
        examples = [PlainExample([1], None, 1) for _ in rows]
        for row, example in zip(rows.tolist(), examples, strict=True):
            own.expect(row, [example])
        for part in torch.arange(len(rows)).flip(0).split(size):
            batch = MicroBatch({}, labels[rows[part]], len(part), 0, tuple(examples[i] for i in part))
            tally.add(Losses(torch.zeros(len(part)), torch.ones(len(part)), outputs[rows[part]]), batch, own)
            own.forget(batch.examples)
    return merged(worst)


def top(wrong: np.ndarray, rows: np.ndarray) -> list[int]:
    """The most wrong of these rows, equal ones by number."""
    return [int(row) for row in sorted(rows, key=lambda row: (-wrong[row], row))[:MOST]]


CUTS = pytest.mark.parametrize(("ranks", "size"), [(1, 100), (1, 7), (3, 4)])


@CUTS
@pytest.mark.parametrize("tally", [ClassTally, TopTally])
def test_taken_for_another_class(tally: Any, ranks: int, size: int) -> None:
    rng = np.random.default_rng(1)
    scores, true = rng.normal(size=(60, 8)).round(1), rng.integers(0, 8, 60)
    scores[30:40] = scores[20]  # equally wrong
    true[30:40] = true[20]
    found = judged(lambda: tally(ABC), ("certain", "unlikely"), torch.tensor(scores), torch.tensor(true), ranks, size)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    said, own = shares.argmax(1), shares[np.arange(60), true]
    wrong = np.flatnonzero(said != true)
    by_kind = {kind: [k.row for k in found if k.kind == kind] for kind in ("certain", "unlikely")}
    assert by_kind["certain"] == top(shares.max(1).round(9) - own / 1e3, wrong)
    assert by_kind["unlikely"] == top(-own.round(9) + shares.max(1) / 1e3, wrong)
    for each in found:
        assert each.values == pytest.approx((said[each.row], shares[each.row].max(), own[each.row]))


@CUTS
def test_classes_that_are_invented_or_missed(ranks: int, size: int) -> None:
    rng = np.random.default_rng(2)
    scores, true = rng.normal(size=(40, 4)), (rng.random((40, 4)) < 0.5).astype(int)
    levels = [0.3, 0.5, 0.6, 0.9]
    found = judged(
        lambda: MultiLabelTally(ABC[:4], levels),
        ("invented", "missed"),
        torch.tensor(scores),
        torch.tensor(true),
        ranks,
        size,
    )
    shares = 1 / (1 + np.exp(-scores))
    said = shares >= levels
    for kind, where, sign in (("invented", said & (true == 0), 1), ("missed", ~said & (true == 1), -1)):
        worst = np.where(where, sign * shares, -9)
        rows = top(worst.max(1), np.flatnonzero(where.any(1)))
        kept = [each for each in found if each.kind == kind]
        assert [each.row for each in kept] == rows
        for each in kept:
            label = worst[each.row].argmax()
            assert each.values == pytest.approx((label, shares[each.row, label]))


@CUTS
def test_numbers_that_are_off(ranks: int, size: int) -> None:
    rng = np.random.default_rng(3)
    said, true = rng.normal(size=(40, 1)), rng.normal(size=40)
    true[5] = said[5, 0]
    found = judged(lambda: RegressionTally(), ("off",), torch.tensor(said), torch.tensor(true), ranks, size)
    assert [each.row for each in found] == top(np.abs(said[:, 0] - true), np.arange(40))
    assert all(each.values == (said[each.row, 0],) for each in found)


def test_a_row_of_several_parts_counts_once_with_all_of_them() -> None:
    """Parts come in any order, in batches of their own; the loss a token is that of the whole row."""
    rng = np.random.default_rng(4)
    worst, tally = Worst(("surprising",), MOST), TokenTally()
    parts = [(row, *rng.integers(1, 9, 2)) for row in range(12) for _ in range(1 + row % 3)]
    examples = [PlainExample([1], None, 1) for _ in parts]
    for row, group in itertools.groupby(range(len(parts)), key=lambda i: parts[i][0]):
        worst.expect(row, [examples[i] for i in group])
    for chunk in np.array_split(rng.permutation(len(parts)), 5):
        losses = Losses(*(torch.tensor([float(parts[i][k]) for i in chunk]) for k in (1, 2)))
        batch = MicroBatch({}, torch.zeros(len(chunk)), len(chunk), 0, tuple(examples[i] for i in chunk))
        tally.add(losses, batch, worst)
        worst.forget(batch.examples)
    sums = np.array([[sum(part[k] for part in parts if part[0] == row) for k in (1, 2)] for row in range(12)])
    mean = sums[:, 0] / sums[:, 1]
    found = merged([worst])
    assert [each.row for each in found] == top(mean, np.arange(12))
    assert [each.wrong for each in found] == pytest.approx(sorted(mean)[::-1][:MOST])
    assert not worst._rows, "nothing is held of rows that were judged"
    assert not worst._parts


def test_what_is_no_number_and_what_nobody_asked_for_is_not_kept() -> None:
    worst = Worst(("a",), 2)
    for row, wrong in enumerate((float("nan"), float("inf"), 1.0)):
        worst.take("a", row, wrong)
        worst.take("b", row, 1.0)
    assert [(each.kind, each.row) for each in merged([worst, Worst(("a",), 2)])] == [("a", 2)]
