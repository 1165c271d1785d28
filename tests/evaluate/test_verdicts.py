"""The rules by which a result is called better, worse, over-fitted or forgetful, at their edges."""

from __future__ import annotations

import math

import pytest

from finetune_api.status import Verdict
from finetune_trainer.evaluate.intervals import wilson
from finetune_trainer.evaluate.verdicts import against, fit, forgotten

ROWS, STEPS = ("100 training rows", "the 100 validation rows"), (120, 600)


def scores(metric: str, value: float, half: float | None = None, **more: float) -> dict[str, float]:
    bounds = {} if half is None else {f"{metric}-low": value - half, f"{metric}-high": value + half}
    return {metric: value, **bounds, **more}


def right(hits: int, rows: int) -> dict[str, float]:
    """Accuracy with Wilson's interval."""
    low, high = wilson(hits, rows)
    return {"accuracy": hits / rows, "accuracy-low": low, "accuracy-high": high}


def told(verdict: Verdict | None) -> tuple[str, bool, str]:
    assert verdict is not None
    return verdict.kind, verdict.warning, verdict.message


@pytest.mark.parametrize(
    ("metric", "after", "before", "kind", "warning", "says"),
    [
        ("macro-f1", (0.95, 0.02), (0.71, 0.03), "BetterThanBase", False, "macro-f1 0.71 → 0.95 on the 80 test rows"),
        ("macro-f1", (0.74, 0.02), (0.71, 0.03), "PerhapsBetterThanBase", False, "the 95 % intervals overlap"),
        ("macro-f1", (0.71, 0.02), (0.71, 0.03), "NoBetterThanBase", True, "No better than the base on these rows"),
        ("macro-f1", (0.31, 0.02), (0.71, 0.03), "NoBetterThanBase", True, "macro-f1 0.71 → 0.31"),
        ("loss", (1.9, 0.02), (2.1, 0.03), "BetterThanBase", False, "loss 2.1 → 1.9"),
        ("loss", (2.2, 0.02), (2.1, 0.03), "NoBetterThanBase", True, "loss 2.1 → 2.2"),
        ("mcc", (0.3, None), (0.2, None), "BetterThanBase", False, "mcc 0.2 → 0.3"),
    ],
)
def test_a_result_beats_what_it_is_compared_with_or_not(
    metric: str,
    after: tuple[float, float | None],
    before: tuple[float, float | None],
    kind: str,
    warning: bool,
    says: str,
) -> None:
    found = told(against("Base", "the base", scores(metric, *after), scores(metric, *before), metric, "80 test rows"))
    assert found[:2] == (kind, warning)
    assert says in found[2]


def test_where_a_metric_is_missing_or_no_number_the_loss_decides() -> None:
    found = told(against("Constant", "x", {"f1": 0.9, "loss": 0.2}, {"f1": math.nan, "loss": 0.1}, "f1", "9 test rows"))
    assert (found[0], "loss 0.1 → 0.2" in found[2]) == ("NoBetterThanConstant", True)
    assert against("Constant", "x", {"f1": 0.9}, {"loss": 0.1}, "f1", "9 test rows") is None


def test_forgetting_names_the_sets_and_figures_the_worst_first() -> None:
    before = {"general": scores("loss", 2.1, 0.01), "code": scores("loss", 1.0, 0.5), "own": scores("loss", 3.0, 0.1)}
    after = {"general": scores("loss", 2.9, 0.01), "code": scores("loss", 1.2, 0.5), "own": scores("loss", 2.0, 0.1)}
    kind, warning, message = told(forgotten(after, before, "loss"))
    assert (kind, warning) == ("Forgetting", True)
    assert message.startswith(
        "Forgetting: loss on set general rose from 2.1 to 2.9; loss on set code rose from 1 to 1.2 (the intervals"
        " overlap). "
    )
    assert "own" not in message


@pytest.mark.parametrize(
    ("value", "kind"), [(2.1, "NothingForgotten"), (2.2, "NothingForgotten"), (2.21, "Forgetting")]
)
def test_forgetting_begins_at_five_percent_of_the_error(value: float, kind: str) -> None:
    assert told(forgotten({"a": {"loss": value}}, {"a": {"loss": 2.1}}, "loss"))[0] == kind


def test_forgetting_of_a_score_counts_what_is_missing_to_one() -> None:
    found = told(forgotten({"a": {"f1": 0.88}}, {"a": {"f1": 0.9}}, "f1"))
    assert found[0] == "Forgetting"
    assert "f1 on set a fell from 0.9 to 0.88" in found[2]
    assert forgotten({"a": {"f1": 0.9}}, {}, "f1") is None


@pytest.mark.parametrize(
    ("learned", "held", "kind"),
    [
        (right(1000, 1000), right(810, 1000), "Overfitting"),
        (right(10, 10), right(8, 10), "Fits"),  # a small set cries no wolf
        (right(20, 20), right(5, 20), "Overfitting"),
        (right(9900, 10_000), right(9600, 10_000), "Fits"),  # clear, and small
        (right(800, 1000), right(990, 1000), "Fits"),
    ],
)
def test_over_fitting_is_a_large_gap_that_is_no_chance(
    learned: dict[str, float], held: dict[str, float], kind: str
) -> None:
    assert told(fit(learned, held, None, "accuracy", rows=ROWS, steps=STEPS))[0] == kind


def test_over_fitting_says_where_the_best_weights_were_and_what_to_do() -> None:
    kind, warning, message = told(fit(right(100, 100), right(60, 100), None, "accuracy", rows=ROWS, steps=STEPS))
    assert (kind, warning) == ("Overfitting", False)
    assert message.startswith(
        "Over-fitting: accuracy 1 on 100 training rows, 0.6 on the 100 validation rows (the 95 % intervals part); the"
        " weights are those of step 120 of 600. Fewer epochs, "
    )
    last = told(fit(right(100, 100), right(60, 100), None, "accuracy", rows=ROWS, steps=(600, 600)))[2]
    assert "step" not in last


@pytest.mark.parametrize(
    ("held", "kind"), [(1.09, "Fits"), (1.11, "Overfitting")], ids=["below the ratio", "above the ratio"]
)
def test_of_a_loss_the_ratio_counts(held: float, kind: str) -> None:
    found = fit(scores("loss", 1.0, 0.001), scores("loss", held, 0.001), None, "loss", rows=ROWS, steps=STEPS)
    assert told(found)[0] == kind


@pytest.mark.parametrize(
    ("hits", "rows", "kind"),
    [
        (505, 1000, "Underfitting"),
        (560, 1000, "PerhapsUnderfitting"),
        (700, 1000, "PerhapsUnderfitting"),
        (740, 1000, "Fits"),
        (14, 20, "Fits"),  # may well be good
        (5, 10, "Fits"),
        (50, 100, "Underfitting"),
        (400, 1000, "Underfitting"),
    ],
)
def test_under_fitting_is_no_better_than_a_constant_answer_even_on_training_rows(
    hits: int, rows: int, kind: str
) -> None:
    found = fit(right(hits, rows), right(hits, rows), {"accuracy": 0.5}, "accuracy", rows=ROWS, steps=STEPS)
    assert told(found)[0] == kind


def test_what_is_half_learned_on_training_rows_may_have_wanted_more_steps() -> None:
    learned, held, constant = scores("f1", 0.4449, 0.01), scores("f1", 0.425, 0.01), {"f1": 0.0672}
    kind, warning, message = told(fit(learned, held, constant, "f1", rows=ROWS, steps=STEPS))
    assert (kind, warning) == ("PerhapsUnderfitting", False)
    assert message.startswith("Perhaps under-fitting: f1 0.4449 on 100 training rows, 0.425 on the 100 validation rows")
    assert message.endswith("more steps, a higher learning rate or training more of the weights help.")


def test_no_loss_or_error_is_asked_to_be_half_of_a_constant_answers() -> None:
    learned = held = scores("loss", 0.7, 0.001)
    assert told(fit(learned, held, {"loss": 1.0}, "loss", rows=ROWS, steps=STEPS))[0] == "Fits"


def test_nobody_under_fits_what_a_constant_answer_does_without_a_fault() -> None:
    found = fit(right(99, 100), right(99, 100), {"accuracy": 1.0}, "accuracy", rows=ROWS, steps=STEPS)
    assert told(found)[0] == "Fits"


def test_a_metric_without_an_interval_leaves_it_to_one_that_has_one() -> None:
    learned, held = {"mcc": 0.9, **right(100, 100)}, {"mcc": 0.1, **right(50, 100)}
    kind, _, message = told(fit(learned, held, None, "mcc", rows=ROWS, steps=STEPS))
    assert (kind, "accuracy 1 on" in message) == ("Overfitting", True)
    assert fit({"mcc": 0.9}, {"mcc": 0.1}, None, "mcc", rows=ROWS, steps=STEPS) is None


def test_messages_stay_within_their_bound() -> None:
    sets = {f"{n}".rjust(32, "x"): scores("loss", 2.0, 0.1) for n in range(8)}
    before = {name: scores("loss", 1.0, 0.1) for name in sets}
    assert len(told(forgotten(sets, before, "loss"))[2]) <= 384
