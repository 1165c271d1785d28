"""The likeliest five: equal to scikit-learn on a thousand random cases, in micro-batches and over ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.top_tally import TopTally
from finetune_trainer.objectives.base import Losses


def tallied(labels: np.ndarray, scores: np.ndarray, names: tuple[str, ...], size: int) -> TopTally:
    tally = TopTally(names)
    for start in range(0, len(labels), size):
        true, outputs = torch.tensor(labels[start : start + size]), torch.tensor(scores[start : start + size])
        batch = MicroBatch({}, true, len(true), len(true))
        tally.add(Losses(torch.ones(len(true)), torch.ones(len(true)), outputs), batch)
    return tally


def test_a_thousand_cases_equal_scikit_learn_however_they_are_cut() -> None:
    rng = np.random.default_rng(11)
    for _ in range(1000):
        count, rows = int(rng.integers(6, 15)), int(rng.integers(1, 40))
        names = tuple(map(str, range(count)))
        labels, scores = rng.integers(0, count, rows), rng.normal(size=(rows, count))
        whole = tallied(labels, scores, names, int(rng.integers(1, rows + 1)))
        cut = int(rng.integers(0, rows + 1))
        first, second = (tallied(labels[p], scores[p], names, 7) for p in (slice(cut), slice(cut, None)))
        first.vector += second.vector
        for tally in (whole, first):
            found = tally.metrics()
            assert found["top-5-accuracy"] == pytest.approx(
                top_k_accuracy_score(labels, scores, k=5, labels=range(count)), abs=1e-6
            )
            assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(1)), abs=1e-6)
            f1 = f1_score(labels, scores.argmax(1), average="macro", zero_division=0)
            assert found["macro-f1"] == pytest.approx(f1, abs=1e-6)
            assert found["loss"] == 1.0
    low, high = (whole.intervals()[f"top-5-accuracy-{side}"] for side in ("low", "high"))
    assert 0 <= low <= whole.metrics()["top-5-accuracy"] <= high <= 1
    assert whole.report()["confusion"]


def test_of_equal_scores_the_first_count() -> None:
    names = tuple("abcdefg")
    same = np.zeros((7, 7))
    assert tallied(np.arange(7), same, names, 3).metrics()["top-5-accuracy"] == pytest.approx(5 / 7)
