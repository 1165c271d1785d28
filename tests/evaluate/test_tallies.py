"""Metrics of one class, of several classes and of numbers equal scikit-learn's and scipy's, however rows are split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import config_context
from sklearn import metrics as reference

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate import score_bins
from finetune_trainer.evaluate.class_tally import ClassTally, log_odds
from finetune_trainer.evaluate.multi_label_tally import CHOOSE, MultiLabelTally
from finetune_trainer.evaluate.regression_tally import RegressionTally
from finetune_trainer.evaluate.score_bins import LENT
from finetune_trainer.objectives.base import Losses

CASES = 1000
pytestmark = pytest.mark.usefixtures("plain_calls")
CLOSE = {"abs": 1e-6, "rel": 1e-6}


@pytest.fixture(scope="module")
def plain_calls() -> Iterator[None]:
    """scikit-learn checks its arguments for longer than it computes."""
    with config_context(assume_finite=True, skip_parameter_validation=True):
        yield


def fed(make: Callable[[], Any], outputs: np.ndarray, labels: np.ndarray, size: int) -> Any:
    """Two ranks' tallies, each fed in micro-batches, added up as the ranks do it."""
    tallies = [make(), make()]
    for n, start in enumerate(range(0, len(labels), size)):
        scores, true = torch.tensor(outputs[start : start + size]), torch.tensor(labels[start : start + size])
        losses = Losses(torch.full((len(true),), 0.5), torch.ones(len(true)), scores)
        tallies[n % 2].add(losses, MicroBatch({}, true, len(true), 0))
    tallies[0].vector += tallies[1].vector
    return tallies[0]


def rounded(odds: np.ndarray) -> np.ndarray:
    return score_bins.bins_of(torch.tensor(odds)).numpy()


def draws(seed: int) -> Iterator[tuple[int, np.random.Generator, int, int, int]]:
    rng = np.random.default_rng(seed)
    for n in range(CASES):
        yield n, rng, int(rng.integers(2, 40)), int(rng.integers(2, 6)), int(rng.integers(7, 30))


def curves(true: np.ndarray, bins: np.ndarray) -> tuple[float, float]:
    """scikit-learn's area under the curve and average precision, in the mean over classes that have one."""
    both = (true.min(0) == 0) & (true.max(0) == 1)
    area = reference.roc_auc_score(true[:, both], bins[:, both], average="macro") if both.any() else 0.5
    some = true.max(0) == 1
    precision = reference.average_precision_score(true[:, some], bins[:, some], average="macro") if some.any() else 0.0
    return float(area), float(precision)


def test_one_class_a_row_equals_scikit_learn() -> None:
    for n, rng, rows, classes, size in draws(1):
        scores, true = rng.normal(size=(rows, classes)) * 3, rng.integers(0, classes, rows)
        found = fed(lambda k=classes: ClassTally(tuple(map(str, range(k)))), scores, true, size).metrics()
        said = scores.argmax(1)
        assert found["loss"] == pytest.approx(0.5)
        assert found["accuracy"] == pytest.approx(np.mean(true == said), **CLOSE)
        if n % 4:  # the others cost more; 250 draws have a thousand classes
            continue
        assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(true, said), **CLOSE)
        for average in ("macro", "weighted"):
            expected = reference.f1_score(true, said, average=average, zero_division=0)
            assert found[f"{average}-f1"] == pytest.approx(expected, **CLOSE)
        bins = rounded(log_odds(torch.tensor(scores)).numpy())
        expected = curves(np.eye(classes, dtype=int)[true], bins)
        assert (found["auroc"], found["average-precision"]) == pytest.approx(expected, **CLOSE)


def test_log_odds_lose_nothing_near_certainty() -> None:
    scores = torch.tensor([[40.0, 0.0, 0.0], [0.0, -30.0, 0.0]], dtype=torch.float64)
    assert log_odds(scores)[0, 0] == pytest.approx(40 - math.log(2), rel=1e-12)
    assert log_odds(scores)[1, 1] == pytest.approx(-30 - math.log(2), rel=1e-12)


def test_many_classes_are_counted_without_a_matrix() -> None:
    names, rng = tuple(map(str, range(10_000))), np.random.default_rng(5)
    true, scores = rng.integers(0, 300, 200), np.zeros((200, 10_000), dtype=np.float32)
    said = np.where(rng.random(200) < 0.6, true, rng.integers(0, 300, 200))
    scores[np.arange(200), said] = 1.0
    tally = fed(lambda: ClassTally(names), scores, true, 64)
    assert tally.vector.size == 30_001
    found = tally.metrics()
    assert found["macro-f1"] == pytest.approx(reference.f1_score(true, said, average="macro", zero_division=0))
    assert found["weighted-f1"] == pytest.approx(reference.f1_score(true, said, average="weighted", zero_division=0))
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(true, said))
    assert "auroc" not in found
    assert set(tally.intervals()) == {"accuracy-low", "accuracy-high"}
    assert "macro-f1 has no interval" in tally.report()["notes"][0]
    assert "confusion" not in tally.report()
    few, many = fed(lambda: ClassTally(names[:256]), scores[:, :256], true % 256, 64), ClassTally(names[:257])
    assert few.metrics().keys() - many.metrics().keys() == {"auroc", "average-precision"}


def test_several_classes_a_row_equal_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of F1 without a class
        for n, rng, rows, classes, size in draws(2):
            true = (rng.random((rows, classes)) < rng.random()).astype(int)
            scores = rng.normal(size=(rows, classes)) * 2 + true
            levels = rng.random(classes)
            names = tuple(map(str, range(classes)))
            tally = fed(lambda k=names, t=levels: MultiLabelTally(k, t.tolist()), scores, true, size)
            found, said = tally.metrics(), (1 / (1 + np.exp(-scores)) >= levels).astype(int)
            hits = 2 * (true & said).sum()
            assert found["micro-f1"] == pytest.approx(hits / max(1, true.sum() + said.sum()), **CLOSE)
            assert found["subset-accuracy"] == pytest.approx(reference.accuracy_score(true, said), **CLOSE)
            if n % 4:
                continue
            for average, empty in (("micro", 0), ("macro", 0), ("samples", 1)):
                expected = reference.f1_score(true, said, average=average, zero_division=empty)
                name = "sample-f1" if average == "samples" else f"{average}-f1"
                assert found[name] == pytest.approx(expected, **CLOSE)
            expected = np.mean([reference.matthews_corrcoef(true[:, c], said[:, c]) for c in range(classes)])
            assert found["mcc"] == pytest.approx(expected, **CLOSE)
            expected = curves(true, rounded(scores))
            assert (found["auroc"], found["average-precision"]) == pytest.approx(expected, **CLOSE)
            scores_by_class = reference.precision_recall_fscore_support(true, said, zero_division=0)
            report = tally.report()["classes"]
            for name, column in zip(("precision", "recall", "f1", "support"), scores_by_class, strict=True):
                assert [entry[name] for entry in report] == pytest.approx(column.tolist(), **CLOSE)
            assert [entry["threshold"] for entry in report] == pytest.approx(levels.tolist())


def test_the_thresholds_are_those_of_the_highest_f1_of_a_class_and_some_rows_of_all() -> None:
    """Beside every threshold that could be chosen, counted one by one."""
    for n, rng, rows, classes, size in draws(3):
        if n >= 100:
            break
        true = (rng.random((rows, classes)) < 0.4).astype(int)
        true[:, 0] = 0
        scores = rng.normal(size=(rows, classes)) * 3 + 2 * true - 1
        names = tuple(map(str, range(classes)))
        chosen = fed(lambda k=names: MultiLabelTally(k), scores, true, size).decision()["thresholds"]
        if not true.any():
            assert chosen == [0.5] * classes
            continue
        bins, lent = rounded(scores), LENT / true.sum()

        def counts(c: int, bin: int, bins: np.ndarray = bins, true: np.ndarray = true) -> np.ndarray:
            """Twice the hits, and the rows said to have the class and those that have it together."""
            said = bins[:, c] >= bin
            return np.array([2 * (said & (true[:, c] > 0)).sum(), said.sum() + true[:, c].sum()])

        def worth(c: int, bin: int, classes: int = classes, lent: float = lent) -> float:
            hits, both = counts(c, bin) + lent * sum(counts(each, bin) for each in range(classes))
            return float(hits / both)

        for c in range(classes):
            best = max(worth(c, bin) for bin in np.unique(bins))
            bin = int(rounded(np.log(chosen[c] / (1 - chosen[c])) + 1e-7))
            assert worth(c, bin) == pytest.approx(best, **CLOSE)


def test_a_class_of_many_rows_chooses_for_itself_and_a_rare_one_with_the_others() -> None:
    rng = np.random.default_rng(7)
    true = np.zeros((2000, 3), dtype=int)
    true[:1000, 0] = true[500:1500, 1] = true[1990, 2] = 1
    scores = rng.normal(size=(2000, 3)) / 2 + 4 * true - [6, 2, 2]
    scores[1990, 2] = -3  # the only row of the third class, below nearly all others

    def said(columns: list[int]) -> list[float]:
        """The share of the rows that are said to have each class."""
        names = tuple(map(str, columns))
        tally = fed(lambda: MultiLabelTally(names, CHOOSE), scores[:, columns], true[:, columns], 500)
        return (tally.counts[2] / 2000).tolist()

    assert [*said([0]), *said([1])] == pytest.approx([0.5, 0.5], abs=0.01)
    assert said([2])[0] > 0.9, "by itself it would be said of nearly all rows"
    assert said([0, 1, 2]) == pytest.approx([0.5, 0.5, 0], abs=0.01)


def test_rows_that_choose_their_thresholds_are_judged_by_them() -> None:
    """What is counted by class equals scikit-learn's at the chosen thresholds; what is counted by row is at 0.5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of F1 without a class
        for n, rng, rows, classes, size in draws(5):
            true = (rng.random((rows, classes)) < rng.random()).astype(int)
            scores = rng.normal(size=(rows, classes)) - 3 + true  # a weak model: hardly a share above 0.5
            names = tuple(map(str, range(classes)))
            tally = fed(lambda k=names: MultiLabelTally(k, CHOOSE), scores, true, size)
            found, thresholds = tally.metrics(), tally.decision()["thresholds"]
            even = (scores >= 0).astype(int)
            assert found["subset-accuracy"] == pytest.approx(reference.accuracy_score(true, even), **CLOSE)
            said = (1 / (1 + np.exp(-scores)) >= thresholds).astype(int)
            hits = 2 * (true & said).sum()
            assert found["micro-f1"] == pytest.approx(hits / max(1, true.sum() + said.sum()), **CLOSE)
            if n % 10:
                continue
            assert found["macro-f1"] == pytest.approx(
                reference.f1_score(true, said, average="macro", zero_division=0), **CLOSE
            )
            expected = np.mean([reference.matthews_corrcoef(true[:, c], said[:, c]) for c in range(classes)])
            assert found["mcc"] == pytest.approx(expected, **CLOSE)
            expected = reference.f1_score(true, even, average="samples", zero_division=1)
            assert found["sample-f1"] == pytest.approx(expected, **CLOSE)
            by_class = reference.precision_recall_fscore_support(true, said, zero_division=0)
            report = tally.report()["classes"]
            for name, column in zip(("precision", "recall", "f1", "support"), by_class, strict=True):
                assert [entry[name] for entry in report] == pytest.approx(column.tolist(), **CLOSE)
            assert [entry["threshold"] for entry in report] == thresholds
            assert "micro-f1-low" not in tally.intervals()


def test_too_many_classes_to_choose_count_from_an_even_share() -> None:
    names, true = tuple(map(str, range(257))), np.eye(257, dtype=int)[:20]
    found = fed(lambda: MultiLabelTally(names, CHOOSE), true * 8.0 - 4, true, 7)
    assert found.metrics()["micro-f1"] == 1.0
    assert set(found.thresholds) == {0.5}
    assert found.decision() == {}


def test_a_share_at_either_end_is_told_from_none() -> None:
    scores, true = np.array([[-14.0], [-15.0], [-15.5]]), np.array([[1], [0], [0]])
    decision = fed(lambda: MultiLabelTally(("a",)), scores, true, 3).decision()
    found = fed(lambda: MultiLabelTally(("a",), decision["thresholds"]), scores, true, 3).metrics()
    assert found["micro-f1"] == 1.0
    assert 0 < decision["thresholds"][0] < 1e-5


def test_the_interval_of_micro_f1_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(4)
    true = (rng.random((300, 5)) < 0.4).astype(int)
    scores = rng.normal(size=(300, 5)) + 1.5 * true - 1
    said, drawn = (scores >= 0).astype(int), []
    for _ in range(1000):
        rows = rng.integers(0, 300, 300)
        drawn.append(2 * (true & said)[rows].sum() / (true[rows].sum() + said[rows].sum()))
    found = fed(lambda: MultiLabelTally(tuple("abcde")), scores, true, 50).intervals()
    assert (found["micro-f1-low"], found["micro-f1-high"]) == pytest.approx(
        tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01
    )


def test_numbers_equal_scipy() -> None:
    for _, rng, rows, kinds, size in draws(6):
        low, high = sorted(rng.normal(size=2) * 10.0 ** rng.integers(-3, 5))
        true = rng.choice(np.linspace(low, high, kinds), rows) if rng.random() < 0.5 else rng.uniform(low, high, rows)
        true[:2] = low, high
        missed = rng.normal(size=rows) * (high - low) * rng.random()
        tally = fed(lambda a=low, b=high: RegressionTally(a, b), (true + missed)[:, None], true, size)
        found = tally.metrics()
        assert found["rmse"] == pytest.approx(math.sqrt(np.mean(missed**2)), rel=1e-6)
        assert found["mae"] == pytest.approx(np.mean(np.abs(missed)), rel=1e-6)
        assert found["pearson"] == pytest.approx(stats.pearsonr(true + missed, true)[0], **CLOSE)
        bins = tally.bins_of(true + missed)
        expected = stats.spearmanr(bins, tally.bins_of(true))[0] if len(set(bins)) > 1 else 0.0
        assert found["spearman"] == pytest.approx(expected, **CLOSE)


def test_numbers_far_from_zero_keep_their_digits() -> None:
    rng = np.random.default_rng(8)
    true = 2000 + rng.normal(size=500)
    said = true + rng.normal(size=500)
    found = fed(lambda: RegressionTally(true.min(), true.max()), said[:, None], true, 37)
    assert found.metrics()["pearson"] == pytest.approx(stats.pearsonr(said, true)[0], abs=1e-9)
    exact = stats.spearmanr(said, true)[0]
    assert found.metrics()["spearman"] == pytest.approx(exact, abs=2e-3), "the resolution costs little"
    bounds = stats.pearsonr(said, true).confidence_interval()
    intervals = found.intervals()
    assert (intervals["pearson-low"], intervals["pearson-high"]) == pytest.approx(tuple(bounds), abs=1e-9)
    assert intervals["rmse-low"] < found.metrics()["rmse"] < intervals["rmse-high"]
    pairs = found.report()["pairs"]
    assert sum(map(sum, pairs["counts"])) == 500
    assert len(pairs["bounds"]) == len(pairs["counts"]) + 1


def test_what_never_changes_goes_with_nothing() -> None:
    same = fed(lambda: RegressionTally(1, 5), np.full((9, 1), 3.3), np.arange(9) % 5 + 1.0, 4)
    assert same.metrics()["pearson"] == same.metrics()["spearman"] == 0.0
    one = fed(lambda: RegressionTally(1, 5), np.full((1, 1), 2.0), np.ones(1), 4)
    assert all(map(math.isfinite, {**one.metrics(), **one.intervals()}.values()))
    alone = fed(lambda: MultiLabelTally(("a", "b")), np.zeros((3, 2)) - 1, np.zeros((3, 2), dtype=int), 2)
    assert alone.metrics() == pytest.approx(
        {
            "loss": 0.5,
            "micro-f1": 0,
            "macro-f1": 0,
            "sample-f1": 1,
            "subset-accuracy": 1,
            "mcc": 0,
            "auroc": 0.5,
            "average-precision": 0,
        }
    )
    assert alone.intervals()["micro-f1-low"] == 0.0
    for empty in (MultiLabelTally(("a",)), RegressionTally()):
        assert all(map(math.isnan, empty.metrics().values()))


def test_scores_of_a_model_that_has_learned_little_are_told_apart() -> None:
    scores = np.linspace(-0.02, 0.02, 101)
    bins = rounded(scores)
    assert (np.diff(bins) > 0).all()
    for bin, score in zip(bins, scores, strict=True):
        assert score_bins.floor_of(int(bin)) <= score + 1e-9
        assert score - score_bins.floor_of(int(bin)) < 1.5e-4
