"""Metrics equal scikit-learn's, do not depend on how rows are split, and their intervals hold what a bootstrap over
rows finds.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from finetune_trainer.batches.example import IGNORE, TokenExample
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.evaluate.class_tally import ClassTally
from finetune_trainer.evaluate.intervals import bootstrap_macro_f1, ratio_interval, wilson
from finetune_trainer.evaluate.loop import Stopped, evaluate
from finetune_trainer.evaluate.token_tally import TokenTally
from finetune_trainer.model.load import load_model
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.objectives.cross_entropy import cross_entropy
from finetune_trainer.objectives.next_token import next_token
from finetune_trainer.tasks.base import Draw, JobFacts
from finetune_trainer.tasks.registry import task_for
from support.models import chats

NAMES = ("a", "b", "c", "d")


def judged(rows: int, seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes, about two thirds right; the last class never occurs."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes - 1, rows)
    return true, np.where(rng.random(rows) < 0.65, true, rng.integers(0, classes - 1, rows))


def add(found: ClassTally, logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Count a micro-batch to which the model gives these logits."""
    batch = MicroBatch({}, labels, len(labels), 0)
    found.add(cross_entropy()(lambda: SimpleNamespace(logits=logits), batch), batch)


def tally(true: np.ndarray, predicted: np.ndarray, size: int) -> ClassTally:
    """Fed in micro-batches of `size` rows."""
    found = ClassTally(NAMES)
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), len(NAMES)) * 3.0
    for start in range(0, len(true), size):
        add(found, logits[start : start + size], torch.tensor(true[start : start + size]))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 7, 200])
def test_scores_equal_scikit_learns(seed: int, size: int) -> None:
    true, predicted = judged(60, seed)
    found = tally(true, predicted, size)
    assert np.array_equal(found.confusion, confusion_matrix(true, predicted, labels=range(4)))
    metrics = found.metrics()
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["macro-f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    expected = precision_recall_fscore_support(true, predicted, labels=range(4), zero_division=0)
    for n, entry in enumerate(found.report()["classes"]):
        assert entry["label"] == NAMES[n]
        for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert entry[name] == pytest.approx(column[n]), name


def test_the_loss_is_the_mean_over_rows() -> None:
    logits, labels = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 4
    found = ClassTally(NAMES)
    for part, names in zip(logits.split(8), labels.split(8), strict=True):
        add(found, part, names)
    assert found.metrics()["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-6)


@pytest.mark.parametrize(("hits", "rows"), [(8, 10), (0, 5), (5, 5), (961, 1000)])
def test_the_interval_of_accuracy_is_wilsons(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    assert wilson(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_of_macro_f1_is_that_of_resampled_rows() -> None:
    true, predicted = judged(200, seed=9)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(600):
        rows = rng.integers(0, 200, 200)
        drawn.append(f1_score(true[rows], predicted[rows], average="macro"))
    found = bootstrap_macro_f1(tally(true, predicted, 50).confusion)
    assert found == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.015)
    assert found == bootstrap_macro_f1(tally(true, predicted, 3).confusion), "the same for the same counts"


def test_the_interval_of_the_loss_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(1, 40, 300).astype(float)
    losses = tokens * rng.gamma(4.0, 0.5, 300)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, 300, 300)
        drawn.append(losses[rows].sum() / tokens[rows].sum())
    found = ratio_interval(losses.sum(), tokens.sum(), losses @ losses, tokens @ tokens, losses @ tokens, 300)
    assert found == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.03)


def language(llama: Path) -> tuple[object, list[TokenExample], int]:
    t, task = load_tokenizer(llama), task_for("causal-lm")
    examples = [
        e for row in chats(21, seed=4) for e in task.encode(row, JobFacts({"messages": "messages"}), t, 96, Draw())
    ]
    return load_model(llama, task_for("causal-lm").head, labels=None, seed=0, pad_id=t.pad_id), examples, t.pad_id


@pytest.mark.parametrize("size", [1, 5, 64])
def test_perplexity_is_that_of_all_learned_tokens_however_rows_are_cut(llama: Path, size: int) -> None:
    model, examples, pad = language(llama)
    ranks = Ranks.alone()
    found = evaluate(model, examples, next_token(), TokenTally(), ranks, size=size, pad_id=pad, max_length=96).metrics()
    assert model.training, "left as it was found"  # type: ignore[attr-defined]
    total = tokens = 0.0
    for e in examples:  # one by one and without padding
        with torch.inference_mode():
            logits = model.eval()(input_ids=torch.tensor([e.input_ids])).logits[0, :-1]  # type: ignore[attr-defined]
        targets = torch.tensor(e.targets[1:])
        total += float(
            torch.nn.functional.cross_entropy(logits.double(), targets, ignore_index=IGNORE, reduction="sum")
        )
        tokens += int((targets != IGNORE).sum())
    assert found["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_an_evaluation_heeds_a_stop_in_its_midst(llama: Path) -> None:
    model, examples, pad = language(llama)
    calls = iter([False, False, True])
    with pytest.raises(Stopped):
        evaluate(
            model,
            examples,
            next_token(),
            TokenTally(),
            Ranks.alone(),
            size=1,
            pad_id=pad,
            max_length=96,
            stop=lambda: next(calls, True),
        )
    assert model.training  # type: ignore[attr-defined]


def test_without_rows_nothing_is_claimed() -> None:
    empty = ClassTally(NAMES)
    assert all(math.isnan(value) for value in empty.metrics().values())
    assert empty.intervals()["macro-f1-low"] == 0.0
    assert math.isnan(TokenTally().metrics()["perplexity"])
