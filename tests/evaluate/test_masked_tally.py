"""Loss, perplexity and accuracy of hidden tokens equal those over all of them at once, however rows are split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.masked_tally import MaskedTally
from finetune_trainer.objectives.base import Losses

WORDS = 11


def tally(rows: list[tuple[np.ndarray, np.ndarray]], size: int, ranks: int) -> MaskedTally:
    """Each row: the shares [tokens, words] that a model gives, and the words that are there."""
    parts = [MaskedTally() for _ in range(ranks)]
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        sums = torch.tensor([float(-np.log(s[range(len(w)), w]).sum()) for s, w in some], dtype=torch.float64)
        right = torch.tensor([float((s.argmax(-1) == w).sum()) for s, w in some])
        losses = Losses(sums, torch.tensor([len(w) for _, w in some]), right)
        parts[start // size % ranks].add(losses, MicroBatch({}, torch.zeros(0), len(some), 0))
    whole = MaskedTally()
    whole.vector = np.sum([part.vector for part in parts], axis=0)
    return whole


def test_they_equal_the_reference_on_a_thousand_random_cases() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        count = int(rng.integers(1, 30))
        rows = []
        for _ in range(count):
            tokens = int(rng.integers(1, 6))
            rows.append((rng.dirichlet(np.ones(WORDS), tokens), rng.integers(0, WORDS, tokens)))
        found = tally(rows, int(rng.integers(1, 8)), int(rng.integers(1, 4)))
        shares, words = np.concatenate([s for s, _ in rows]), np.concatenate([w for _, w in rows])
        metrics = found.metrics()
        loss = float(torch.nn.functional.nll_loss(torch.tensor(shares).log(), torch.tensor(words)))
        assert metrics["loss"] == pytest.approx(loss, abs=1e-6)
        assert metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
        assert metrics["accuracy"] == pytest.approx(float((shares.argmax(1) == words).mean()), abs=1e-6)
        bounds = found.intervals()
        for name in ("loss", "perplexity", "accuracy"):
            assert bounds[f"{name}-low"] <= metrics[name] + 1e-9
            assert bounds[f"{name}-high"] >= metrics[name] - 1e-9
        assert 0 <= bounds["accuracy-low"] <= bounds["accuracy-high"] <= 1


def test_the_interval_of_accuracy_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(5)
    tokens = rng.integers(1, 9, 400)
    right = rng.binomial(tokens, rng.beta(4, 3, 400))
    found = MaskedTally()
    found.add(
        Losses(torch.tensor(tokens * 0.7), torch.tensor(tokens), torch.tensor(right)),
        MicroBatch({}, torch.zeros(0), 400, 0),
    )
    drawn = [right[i].sum() / tokens[i].sum() for i in (rng.integers(0, 400, 400) for _ in range(2000))]
    bounds = found.intervals()
    expected = np.percentile(drawn, [2.5, 97.5])
    assert (bounds["accuracy-low"], bounds["accuracy-high"]) == pytest.approx(tuple(expected), abs=0.01)


def test_without_rows_nothing_is_claimed() -> None:
    assert all(math.isnan(value) for value in MaskedTally().metrics().values())
