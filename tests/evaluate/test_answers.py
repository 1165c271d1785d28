"""Answers are judged as SQuAD 2.0's official script judges them, whatever the order of windows, micro-batches and
ranks; the threshold for "no answer" is the best there is.
"""

from __future__ import annotations

import collections
import random
import re
import string
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.span_example import Asked, SpanExample
from finetune_trainer.evaluate import squad
from finetune_trainer.evaluate.answer_tally import BINS, CHOOSE, GRID, AnswerTally
from finetune_trainer.evaluate.best_span import best_spans
from finetune_trainer.objectives.answer_span import answer_span

WORDS = [
    "the",
    "The",
    "a",
    "an",
    "An.",
    "Theatre",
    "cat",
    "cat,",
    "Cat!",
    "naïve",
    "naïve",
    "Straße",
    "東京",
    "—",
    "«x»",
]
WORDS += ["U.S.", "us", "3,5", "35", "%", "...", "I'm", "Im", "the-end", "  ", "\u00a0", "\t", "ﬁ", "İstanbul", "$5"]


class Official:
    """The official script's figures (evaluate-v2.0.py), written anew from its description: the oracle."""

    def __init__(self, golds: dict[int, Sequence[str]], given: dict[int, str]) -> None:
        self.has = {key: bool(texts) for key, texts in golds.items()}
        self.exact, self.f1 = {}, {}
        for key, texts in golds.items():
            usable = [text for text in texts if self.normal(text)] or [""]
            self.exact[key] = max(int(self.normal(text) == self.normal(given[key])) for text in usable)
            self.f1[key] = max(self.overlap(text, given[key]) for text in usable)

    @staticmethod
    def normal(text: str) -> str:
        kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.compile(r"\b(a|an|the)\b", re.UNICODE).sub(" ", kept).split())

    def overlap(self, right: str, given: str) -> float:
        a, b = self.normal(right).split(), self.normal(given).split()
        same = sum((collections.Counter(a) & collections.Counter(b)).values())
        if not a or not b:
            return float(a == b)
        if same == 0:
            return 0.0
        p, r = same / len(b), same / len(a)
        return (2 * p * r) / (p + r)

    def mean(self, scores: dict[int, float], has: bool | None = None) -> float:
        kept = [value for key, value in scores.items() if has is None or self.has[key] is has]
        return sum(kept) / len(kept)


def phrase(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(0, 5)))


def judged(rows: int, seed: int) -> list[tuple[float, str, tuple[str, ...]]]:
    """(margin, best span, right answers): some right, some none, some of which nothing is left when they are normal."""
    rng, found = random.Random(seed), []
    for _ in range(rows):
        right = tuple(phrase(rng) or "the" for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))))
        given = rng.choice(right) if right and rng.random() < 0.5 else phrase(rng)
        found.append((rng.gauss(0 if right else 3, 6) * rng.choice((1, 1, 20)), given, right))
    return found


def test_scores_equal_the_official_script() -> None:
    rng, seen = random.Random(1), collections.Counter[float]()
    for _ in range(3000):
        right = [phrase(rng) for _ in range(rng.randint(0, 3))]
        given = rng.choice(right) if right and rng.random() < 0.4 else phrase(rng)
        official = Official({0: right}, {0: given})
        assert squad.scores(given, right) == pytest.approx((official.exact[0], official.f1[0]), abs=1e-12), (
            given,
            right,
        )
        seen[official.exact[0] + official.f1[0]] += 1
    assert len(seen) > 8, "right, wrong, and much between them"


@pytest.mark.parametrize("threshold", [None, 0.0, -1.5, 2.0625])
def test_metrics_at_a_threshold_equal_the_official_script(threshold: float | None) -> None:
    rows = judged(1500, seed=2)
    tally = AnswerTally(30, threshold)
    for row in rows:
        tally.count(*row)
    given = {n: "" if threshold is not None and m > threshold else text for n, (m, text, _) in enumerate(rows)}
    official = Official({n: right for n, (_, _, right) in enumerate(rows)}, given)
    metrics = tally.metrics()
    assert metrics["exact-match"] == pytest.approx(official.mean(official.exact), abs=1e-9)
    assert metrics["answer-f1"] == pytest.approx(official.mean(official.f1), abs=1e-9)
    (table,) = tally.report()["tables"]
    for has, (_, count, exact, f1, _) in zip((True, False), table["rows"], strict=True):
        assert count == f"{sum(official.has[n] is has for n in official.has):,}"
        assert exact == f"{official.mean(official.exact, has):.3f}"
        assert f1 == f"{official.mean(official.f1, has):.3f}"
    assert tally.decision() == {"noAnswerThreshold": threshold}


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_of_the_grid_is_better_than_the_chosen_one(seed: int) -> None:
    rows = judged(250, seed)
    chosen = AnswerTally(30)
    for row in rows:
        chosen.count(*row)
    threshold = chosen.decision()["noAnswerThreshold"]
    found = {}
    for tried in (*GRID[::64].tolist(), threshold, None):
        given = {n: "" if tried is not None and m > tried else text for n, (m, text, _) in enumerate(rows)}
        official = Official({n: right for n, (_, _, right) in enumerate(rows)}, given)
        found[tried] = official.mean(official.f1)
    assert chosen.metrics()["answer-f1"] == pytest.approx(found[threshold], abs=1e-9)
    assert max(found.values()) <= found[threshold] + 1e-9
    assert max(found.values()) > min(found.values()) + 0.02, "it matters"


def test_rows_that_all_have_answers_are_always_answered() -> None:
    tally = AnswerTally(30)
    for margin, text, right in judged(200, seed=4):
        if right:
            tally.count(margin, text, right)
    assert tally.decision() == {"noAnswerThreshold": None}


def test_the_interval_of_f1_is_that_of_resampled_rows() -> None:
    tally = AnswerTally(30, 0.0)
    rows = judged(300, seed=6)
    for row in rows:
        tally.count(*row)
    rng = np.random.default_rng(1)
    f1 = np.array([squad.scores("" if margin > 0 else text, right)[1] for margin, text, right in rows])
    drawn = [f1[rng.integers(0, 300, 300)].mean() for _ in range(2000)]
    found = tally.intervals()
    assert (found["answer-f1-low"], found["answer-f1-high"]) == pytest.approx(
        tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.015
    )
    assert 0 <= found["exact-match-low"] < tally.metrics()["exact-match"] < found["exact-match-high"] <= 1


def test_the_best_span_is_that_of_a_search_over_all() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        width, most = int(rng.integers(3, 12)), int(rng.integers(1, 6))
        logits = rng.normal(size=(1, 2, width)).round(1)
        null, low = int(rng.integers(0, width)), int(rng.integers(0, width - 1))
        possible = [p for p in range(low, width) if p != null]
        logits[0][:, [p for p in range(width) if p not in possible and p != null]] = -np.inf
        spans = [
            (round(logits[0, 0, i] + logits[0, 1, j], 6), -(j - i), -i)
            for i in possible
            for j in possible
            if i <= j < i + most
        ]
        found = best_spans(logits, np.array([null]), most)
        assert found.null[0] == pytest.approx(logits[0, 0, null] + logits[0, 1, null])
        if spans:
            best = max(spans)
            assert found.score[0] == pytest.approx(best[0])
            assert (found.start[0], found.end[0]) == (-best[2], -best[2] - best[1])


def windows_of(key: int, rng: random.Random, answers: tuple[str, ...]) -> list[SpanExample]:
    """One to four windows of a row; each token of the context is one character."""
    context = "".join(rng.choices("abcdefgh", k=rng.randint(5, 24)))
    count, size = rng.randint(1, 4), rng.randint(3, 5)
    asked = Asked(key, context, answers, count)
    found = []
    for _ in range(count):
        low, first = rng.randrange(len(context) - size + 1), rng.randint(1, 4)
        offsets = [(i, i + 1) for i in range(low, low + size)]
        null = rng.choice((0, first + size))
        ids = [rng.randrange(10, 99) for _ in range(first + size + 1)]
        found.append(SpanExample(ids, None, 40, asked, offsets, first, null, (null, null)))
    return found


class Scored:
    """A model whose logits hang on the ids alone."""

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        noise = torch.sin(input_ids * 12.9898 + torch.arange(input_ids.shape[1]) * 4.1) * 5
        return SimpleNamespace(start_logits=noise, end_logits=torch.cos(noise * 3) * 5)


def batches(windows: list[SpanExample], size: int) -> Iterator[MicroBatch]:
    for start in range(0, len(windows), size):
        yield collate(windows[start : start + size], 0, 64)


def fed(parts: Sequence[list[SpanExample]], size: int, threshold: float | str | None = CHOOSE) -> AnswerTally:
    """The sum over ranks, each with windows of its own."""
    total = AnswerTally(3, threshold)
    for windows in parts:
        tally = AnswerTally(3, threshold)
        for batch in batches(windows, size):
            tally.add(answer_span(Scored(), batch), batch)
        total.vector += tally.vector
    return total


def test_a_row_is_judged_by_the_best_of_all_its_windows_in_whatever_order_they_come() -> None:
    rng = random.Random(7)
    rows = [windows_of(key, rng, ("a", "ab") if key % 3 else ()) for key in range(45)]
    plain = [window for row in rows for window in row]
    whole = fed([plain], 1)
    expected: list[tuple[float, str]] = []
    for row in rows:  # one window after the other, by hand
        spans, nulls = [], []
        for window in row:
            (logits,) = answer_span(Scored(), collate([window], 0, 64)).outputs.double().numpy()  # type: ignore[union-attr]
            nulls.append(logits[0, window.null] + logits[1, window.null])
            places = range(window.first, window.first + len(window.offsets))
            spans += [
                (logits[0, i] + logits[1, j], window.asked.context[slice(*window.text(i, j))])
                for i in places
                for j in places
                if i <= j < i + 3
            ]
        best = max(spans)
        expected.append((min(nulls) - best[0], best[1]))
    by_hand = AnswerTally(3)
    for (margin, text), row in zip(expected, rows, strict=True):
        by_hand.count(margin, text, row[0].asked.answers)
    assert np.array_equal(whole.sums, by_hand.sums)
    assert len({place for place in range(BINS) if whole.sums[:, 0, place].any()}) > 12

    mixed = plain.copy()
    rng.shuffle(mixed)
    ranks = [[w for row in rows[rank::3] for w in row] for rank in range(3)]
    for other in (fed([mixed], 7), fed(ranks, 4), fed([sorted(plain, key=lambda w: -w.length)], 32)):
        assert np.array_equal(other.sums[:, :2], whole.sums[:, :2])
        assert other.vector == pytest.approx(whole.vector, abs=1e-5)
        assert other.metrics() == pytest.approx(whole.metrics(), abs=1e-6)
        assert other.decision() == whole.decision()


def test_only_rows_that_are_not_whole_are_held() -> None:
    rng = random.Random(8)
    rows = [windows_of(key, rng, ("a",)) for key in range(200)]
    tally, held = AnswerTally(3), 0
    for batch in batches([w for row in rows for w in row], 8):
        tally.add(answer_span(Scored(), batch), batch)
        held = max(held, len(tally._gathered.open))
    assert held <= 1, "a row is let go with its last window"
    tally.metrics()
    lost = AnswerTally(3)
    part = next(row for row in rows if len(row) > 1)[:-1]
    for batch in batches(part, 8):
        lost.add(answer_span(Scored(), batch), batch)
    with pytest.raises(AssertionError, match="missing"):
        lost.metrics()


def test_the_loss_weighs_rows_not_windows_and_takes_no_notice_of_padding() -> None:
    rng = random.Random(9)
    rows = [windows_of(key, rng, ()) for key in range(40)]
    losses = []
    for row in rows:
        own = []
        for window in row:
            start, end = (
                answer_span(Scored(), collate([window], 0, 64)).outputs[0].double()  # type: ignore[index]
            )
            own.append(float(-(start.log_softmax(0)[window.null] + end.log_softmax(0)[window.null]) / 2))
        losses.append(sum(own) / len(own))
    tally = fed([[w for row in rows for w in row]], 16)
    assert tally.metrics()["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
