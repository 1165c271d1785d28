"""Objectives give sums of losses and their counts, row by row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.cross_entropy import cross_entropy
from finetune_trainer.objectives.next_token import next_token


def saying(logits: torch.Tensor) -> Any:
    """A model that answers so to everything."""
    return lambda **inputs: SimpleNamespace(logits=logits)


def batch(labels: Any) -> MicroBatch:
    return MicroBatch({"input_ids": torch.zeros(1)}, torch.tensor(labels), len(labels), 0)


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_a_class_is_one_loss_a_row() -> None:
    scores = logits(3, 4)
    found = cross_entropy()(saying(scores), batch([1, 0, 3]))
    expected = -scores.log_softmax(-1)[torch.arange(3), torch.tensor([1, 0, 3])]
    assert torch.allclose(found.sums, expected)
    assert found.counts.tolist() == [1, 1, 1]
    assert found.outputs is scores
    assert float(found.total) == pytest.approx(float(expected.sum()))


def test_each_learned_token_is_predicted_from_the_position_before_it() -> None:
    scores = logits(3, 4, 6)
    labels = [[2, 5, IGNORE, 1], [IGNORE] * 4, [IGNORE, IGNORE, IGNORE, 4]]
    found = next_token()(saying(scores), batch(labels))
    rates = -scores.log_softmax(-1)
    expected = torch.stack([rates[0, 0, 5] + rates[0, 2, 1], torch.zeros(()), rates[2, 2, 4]])
    assert torch.allclose(found.sums, expected)
    assert found.counts.tolist() == [2, 0, 1]


def test_smoothing_spreads_a_share_of_the_target_over_all_classes() -> None:
    scores, rates = logits(3, 4), logits(3, 4).log_softmax(-1)
    found = cross_entropy(smoothing=0.2)(saying(scores), batch([1, 0, 3]))
    expected = -0.8 * rates[torch.arange(3), torch.tensor([1, 0, 3])] - 0.2 * rates.mean(-1)
    assert torch.allclose(found.sums, expected)
    scores, rates = logits(1, 3, 6), logits(1, 3, 6).log_softmax(-1)
    found = next_token(smoothing=0.3)(saying(scores), batch([[2, IGNORE, 4]]))
    assert torch.allclose(found.sums, -0.7 * rates[0, 1, 4] - 0.3 * rates[0, 1].mean())
    assert found.counts.tolist() == [1]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_losses_are_summed_in_full_precision(precision: torch.dtype) -> None:
    assert cross_entropy()(saying(logits(2, 4).to(precision)), batch([1, 0])).sums.dtype is torch.float32
    assert next_token()(saying(logits(1, 3, 4).to(precision)), batch([[1, 2, 3]])).sums.dtype is torch.float32
    assert cross_entropy()(saying(logits(2, 4).double()), batch([1, 0])).sums.dtype is torch.float64
