"""What classes weigh: as scikit-learn has it, 1 in the mean over the training rows; and losses of several classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from finetune_api.tuning import Training
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.binary_cross_entropy import binary_cross_entropy
from finetune_trainer.objectives.cross_entropy import cross_entropy
from finetune_trainer.objectives.squared_error import squared_error
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.class_weights import class_weights, weights_beside

BALANCED = Training(class_weights="balanced")


def saying(logits: torch.Tensor) -> Any:
    return lambda **inputs: SimpleNamespace(logits=logits)


def batch(labels: Any) -> MicroBatch:
    return MicroBatch({}, torch.tensor(labels), len(labels), 0)


def test_classes_weigh_as_scikit_learn_has_it() -> None:
    rows = np.array([0] * 70 + [1] * 25 + [2] * 5)
    found = class_weights(JobFacts({}, ("a", "b", "c", "never"), (70, 25, 5, 0), training=BALANCED))
    assert found is not None
    assert found[:3] == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=rows).tolist())
    assert np.take(found, rows).mean() == pytest.approx(1.0)
    assert found[3] == 1.0
    for unweighted in (Training(), Training(class_weights="none")):
        assert class_weights(JobFacts({}, ("a", "b"), (1, 9), training=unweighted)) is None
        assert weights_beside(JobFacts({}, ("a", "b"), (1, 9), training=unweighted, rows=10)) is None


def test_each_of_several_classes_weighs_against_its_absence() -> None:
    facts = JobFacts({}, ("rare", "all", "none", "half"), (4, 100, 0, 50), training=BALANCED, rows=100)
    found = weights_beside(facts)
    assert found is not None
    for (without, having), count in zip(found, facts.label_counts, strict=True):
        assert (without * (100 - count) + having * count) / 100 == pytest.approx(1.0)
    rows = np.array([1] * 4 + [0] * 96)
    assert found[0] == pytest.approx(tuple(compute_class_weight("balanced", classes=np.arange(2), y=rows)))
    assert found[0][1] / found[0][0] == pytest.approx(96 / 4), "torch's pos_weight"
    assert found[1:] == ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


def test_a_row_s_loss_is_weighed_and_the_count_stays() -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    plain = cross_entropy()(saying(scores), batch([0, 1, 2, 1]))
    found = cross_entropy(weights=(0.5, 2.0, 1.0))(saying(scores), batch([0, 1, 2, 1]))
    assert torch.allclose(found.sums, plain.sums * torch.tensor([0.5, 2.0, 1.0, 2.0]))
    assert found.counts.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float64])
def test_several_classes_are_one_loss_a_row_whatever_the_numbers_types(precision: torch.dtype) -> None:
    """Classes come as whole numbers, which torch's loss does not take."""
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).to(precision)
    having = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    found = binary_cross_entropy()(saying(scores), batch(having))
    exact = scores.float() if precision is torch.bfloat16 else scores
    expected = F.binary_cross_entropy_with_logits(exact, torch.tensor(having).to(exact.dtype), reduction="none")
    assert torch.equal(found.sums, expected.mean(1))
    assert found.counts.tolist() == [1, 1, 1]
    weights = ((0.5, 3.0), (1.0, 1.0), (2.0, 0.5), (1.0, 4.0))
    weighed = binary_cross_entropy(weights)(saying(scores), batch(having)).sums
    each = torch.tensor([[weights[c][has] for c, has in enumerate(row)] for row in having], dtype=exact.dtype)
    assert torch.allclose(weighed, (expected * each).mean(1))


def test_a_number_is_missed_by_its_square() -> None:
    found = squared_error()(saying(torch.tensor([[1.5], [-2.0]])), batch([1.0, 1.0]))
    assert found.sums.tolist() == [0.25, 9.0]
    assert found.counts.tolist() == [1, 1]
    found = squared_error(0.5)(saying(torch.tensor([[1.5], [-2.0]])), batch([1.0, 1.0]))
    assert found.sums.tolist() == [1.0, 36.0], "in units of half"
