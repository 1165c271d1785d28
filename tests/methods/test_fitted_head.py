"""A head fitted to vectors that stand still: scikit-learn's, whatever it was before, and on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.methods.fitted_head import fit_head
from finetune_trainer.objectives.cross_entropy import cross_entropy
from finetune_trainer.objectives.squared_error import squared_error
from support.ranks import run_ranks

WIDTH = 24


def blobs(rows: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, WIDTH, generator=draws) * 0.3
    return torch.randn(rows, WIDTH, generator=draws) + centres[labels], labels


def fitted(vectors: torch.Tensor, labels: torch.Tensor, classes: int, strength: float = 1.0) -> torch.nn.Linear:
    layer = torch.nn.Linear(WIDTH, classes)
    fit_head(layer, vectors, labels, cross_entropy(), Ranks.alone(), strength)
    return layer


@pytest.mark.parametrize(("rows", "classes"), [(12, 3), (16, 2), (400, 5)])
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_it_is_logistic_regression(rows: int, classes: int, strength: float) -> None:
    vectors, labels = blobs(rows, classes, seed=rows)
    # scikit-learn has one row of weights for two classes, the difference of ours: its square is twice as large
    weight = strength / (2 if classes == 2 else 1)
    theirs = LogisticRegression(C=1 / weight, tol=1e-12, max_iter=10_000).fit(vectors.double().numpy(), labels.numpy())
    with torch.no_grad():
        ours = torch.softmax(fitted(vectors, labels, classes, strength)(vectors).double(), 1).numpy()
    assert np.abs(ours - theirs.predict_proba(vectors.double().numpy())).max() < 1e-5


def test_other_objectives_have_their_own_best_head() -> None:
    vectors, _ = blobs(50, 2, seed=3)
    numbers = vectors[:, 0] * 2 + 1 + torch.randn(50, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(WIDTH, 1)
    fit_head(layer, vectors, numbers, squared_error(), Ranks.alone(), 3.0)
    theirs = Ridge(alpha=1.5).fit(vectors.double().numpy(), numbers.double().numpy())
    with torch.no_grad():
        assert np.abs(layer(vectors)[:, 0].numpy() - theirs.predict(vectors.double().numpy())).max() < 1e-4


def test_what_it_was_before_does_not_show() -> None:
    vectors, labels = blobs(30, 3, seed=1)
    once, layer = fitted(vectors, labels, 3), fitted(*blobs(40, 3, seed=2), classes=3)
    fit_head(layer, vectors, labels, cross_entropy(), Ranks.alone(), 1.0)
    assert torch.equal(layer.weight, once.weight)
    assert torch.equal(layer.bias, once.bias)


def part(ranks: Ranks, vectors: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    layer = torch.nn.Linear(WIDTH, 3)
    own = slice(ranks.rank, None, ranks.size)
    fit_head(layer, vectors[own], labels[own], cross_entropy(), ranks, 1.0)
    return layer.weight.detach(), layer.bias.detach()


@pytest.mark.parametrize(("size", "rows"), [(2, 31), (3, 2)])
def test_ranks_fit_one_head_together(size: int, rows: int) -> None:
    """On three ranks, one has no row."""
    vectors, labels = blobs(rows, 3, seed=4)
    whole = fitted(vectors, labels, 3)
    results = run_ranks(size, part, vectors, labels)
    for weight, bias in results:
        assert torch.equal(weight, results[0][0])
        assert torch.equal(bias, results[0][1])
        assert torch.allclose(weight, whole.weight, atol=1e-6)


def test_a_class_without_rows_is_never_the_answer() -> None:
    vectors, labels = blobs(20, 2, seed=5)
    with torch.no_grad():
        scores = fitted(vectors, labels, 3)(vectors)
    assert torch.isfinite(scores).all()
    assert set(scores.argmax(1).tolist()) == {0, 1}
