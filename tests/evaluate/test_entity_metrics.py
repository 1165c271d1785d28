"""Scores of entities equal seqeval's and those of plain tags scikit-learn's, however rows are cut and shared out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.tagged import TaggedExample, TaggedRow
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.objectives.base import Losses
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.entities.tags import outputs_for, spans_of, tags_of
from finetune_trainer.tasks.registry import task_for
from support import seqeval

TASK = task_for("token-classification")
TYPES = ("LOC", "ORG", "PER")
LABELS = outputs_for(TYPES)
FACTS = JobFacts({"tokens": "tokens", "tags": "tags"}, LABELS)
SCHEMES = {"IOB1": "I", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}
AS_IOBES = str.maketrans("LU", "ES")
Answered = list[tuple[TaggedExample, list[int]]]
"""Examples and the outputs that the model prefers at their units."""


def windows_of(
    tags: Sequence[str], answers: Sequence[str], labels: Sequence[str], rng: random.Random, lost: Sequence[str] = ()
) -> Answered:
    """A row in up to three windows, cut anywhere; `lost`: tags of words that have no unit."""
    cuts = sorted(rng.sample(range(1, len(tags)), min(rng.randint(0, 2), len(tags) - 1)))
    spans = tuple((s.first, s.last, TYPES.index(s.kind)) for s in spans_of(tags)) if labels is LABELS else ()
    row = TaggedRow(
        len(tags),
        len(cuts) + 1,
        spans,
        lost_spans=tuple(TYPES.index(s.kind) for s in spans_of(lost)) if labels is LABELS else (),
        lost_tags=tuple(labels.index(tag) for tag in lost if tag != "O"),
    )
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(tags)], strict=True):
        targets = [IGNORE] + [labels.index(tag) for tag in tags[start:end]] + [IGNORE] * rng.randint(0, 2)
        example = TaggedExample([1] * len(targets), None, len(targets), targets, row, start)
        found.append((example, [labels.index(tag) for tag in answers[start:end]]))
    return found


def batches(answered: Answered, size: int, outputs: int) -> Iterator[tuple[Losses, object]]:
    """What an objective makes of micro-batches of this size."""
    for start in range(0, len(answered), size):
        some = answered[start : start + size]
        batch = collate([example for example, _ in some], 0, 64)
        numbers = torch.tensor([n for _, answers in some for n in answers])
        counts = torch.tensor([example.losses for example, _ in some])
        yield Losses(counts.double() / 2, counts, torch.nn.functional.one_hot(numbers, outputs).float()), batch


def tally(answered: Answered, size: int, labels: Sequence[str] = LABELS) -> Tally:
    found = TASK.tally(JobFacts(FACTS.columns, labels), {})
    for losses, batch in batches(answered, size, len(labels)):
        found.add(losses, batch)  # type: ignore[arg-type]
    return found


def random_rows(rng: random.Random, letters: str) -> list[tuple[list[str], list[str]]]:
    """Tags of a scheme, in whatever order, and answers in BIO2 that are right about two times in three."""
    rows = []
    for _ in range(rng.randint(1, 5)):
        tags = [rng.choice(["O", f"{rng.choice(letters)}-{rng.choice(TYPES)}"]) for _ in range(rng.randint(1, 9))]
        right = tags_of(spans_of(tags), len(tags))
        rows.append((tags, [tag if rng.random() < 0.65 else rng.choice(LABELS) for tag in right]))
    return rows


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_equal_seqevals(scheme: str) -> None:
    rng = random.Random(11)
    for case in range(1000):
        rows = random_rows(rng, SCHEMES[scheme])
        true = [tags_of(spans_of(tags), len(tags)) for tags, _ in rows]
        found = tally(
            [w for (_, answers), own in zip(rows, true, strict=True) for w in windows_of(own, answers, LABELS, rng)],
            1 + case % 7,
        )
        metrics = found.metrics()
        as_written = [[tag[0].translate(AS_IOBES) + tag[1:] for tag in tags] for tags, _ in rows]
        answers = [answers for _, answers in rows]
        assert seqeval.entities(as_written) == seqeval.entities(true), "converted without loss"
        expected = seqeval.scores(true, answers)
        overall = expected.pop("")
        assert all(abs(metrics[name] - overall[name]) <= 1e-6 for name in overall if name != "support")
        for entry in found.report()["classes"]:  # type: ignore[index]
            score = expected.get(entry["label"], seqeval.three(set(), set()))
            assert all(abs(entry[name] - score[name]) <= 1e-6 for name in score)
        assert metrics["loss"] == pytest.approx(0.5)


def test_any_share_of_rows_on_ranks_and_any_order_gives_the_same() -> None:
    rng = random.Random(4)
    rows = [row for _ in range(30) for row in random_rows(rng, "BI")]
    answered = [windows_of(tags_of(spans_of(t), len(t)), a, LABELS, rng, lost=["B-PER", "I-PER", "O"]) for t, a in rows]
    whole = tally([w for row in answered for w in row], 8)
    shares = []
    for rank in range(3):
        mine = [w for row in answered[rank::3] for w in row]
        rng.shuffle(mine)
        shares.append(tally(mine, 1 + rank).vector)
    assert np.allclose(whole.vector, sum(shares), rtol=1e-12)
    assert whole.vector.size == 3 * len(TYPES) + 33, "as large as it was with one row"
    assert not whole._waiting, "nothing is kept of rows that were counted"  # type: ignore[attr-defined]


def test_what_no_answer_can_find_counts_as_missed() -> None:
    rng = random.Random(1)
    found = tally(windows_of(["B-PER", "O"], ["B-PER", "O"], LABELS, rng, lost=["B-PER", "B-LOC", "I-LOC"]), 4)
    metrics = found.metrics()
    assert (metrics["precision"], metrics["recall"], metrics["accuracy"]) == (1.0, 1 / 3, 2 / 5)
    assert {c["label"]: (c["recall"], c["support"]) for c in found.report()["classes"]} == {  # type: ignore[index]
        "LOC": (0.0, 1),
        "ORG": (0.0, 0),
        "PER": (0.5, 2),
    }


def test_intervals_are_those_of_resampled_rows() -> None:
    rng = random.Random(6)
    rows = [row for _ in range(90) for row in random_rows(rng, "BI")]
    answered = [windows_of(tags_of(spans_of(t), len(t)), a, LABELS, rng) for t, a in rows]
    found = tally([w for row in answered for w in row], 16).intervals()
    counts = np.array([tally(row, 4)._rows[1] for row in answered])  # type: ignore[attr-defined]
    draw, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        right, true, seen, hits, words = counts[draw.integers(0, len(counts), len(counts))].sum(0)
        drawn.append([2 * right / (true + seen), right / seen, right / true, hits / words])
    for n, name in enumerate(("f1", "precision", "recall", "accuracy")):
        expected = np.percentile(np.array(drawn)[:, n], [2.5, 97.5])
        assert [found[f"{name}-low"], found[f"{name}-high"]] == pytest.approx(expected, abs=0.012), name


def test_without_an_entity_nothing_is_found_and_no_bound_is_claimed() -> None:
    found = tally(windows_of(["O", "O"], ["O", "O"], LABELS, random.Random(0)), 2)
    metrics, bounds = found.metrics(), found.intervals()
    assert [metrics[n] for n in ("f1", "precision", "recall", "macro-f1", "accuracy")] == [0, 0, 0, 0, 1]
    assert (bounds["f1-low"], bounds["f1-high"]) == (0, 1)


PLAIN = ("ADJ", "NOUN", "O", "VERB")


def test_scores_of_plain_tags_equal_scikit_learns() -> None:
    rng = random.Random(8)
    for case in range(1000):
        rows = [[rng.choice(PLAIN[:3]) for _ in range(rng.randint(1, 8))] for _ in range(rng.randint(1, 4))]
        given = [[tag if rng.random() < 0.6 else rng.choice(PLAIN) for tag in row] for row in rows]
        answered = [w for row, own in zip(rows, given, strict=True) for w in windows_of(row, own, PLAIN, rng)]
        found = tally(answered, (1, 5, 30)[case % 3], PLAIN)
        true, answers = ([tag for row in x for tag in row] for x in (rows, given))
        metrics, expected = found.metrics(), means(true, answers)
        assert all(abs(metrics[name] - expected[name]) <= 1e-6 for name in expected)
        assert metrics["macro-f1"] == metrics["f1"]
        if case % 20 == 0:  # scikit-learn takes a while
            seen = sorted({*true, *answers})
            theirs = precision_recall_fscore_support(true, answers, labels=seen, average="macro", zero_division=0)
            assert [expected[n] for n in ("precision", "recall", "f1")] == pytest.approx(theirs[:3], abs=1e-9)
            assert expected["accuracy"] == accuracy_score(true, answers)
    assert np.array(found.report()["confusion"]).sum() == len(true)  # type: ignore[index]


def means(true: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Means over the tags that occur, and accuracy."""
    scores = []
    for tag in {*true, *answers}:
        a, b = ({n for n, other in enumerate(x) if other == tag} for x in (true, answers))
        scores.append(seqeval.three({(tag, n, n) for n in a}, {(tag, n, n) for n in b}))
    found = {name: sum(score[name] for score in scores) / len(scores) for name in ("precision", "recall", "f1")}
    return found | {"accuracy": sum(x == y for x, y in zip(true, answers, strict=True)) / len(true)}


def test_plain_words_that_the_model_does_not_see_are_wrong() -> None:
    rng = random.Random(2)
    found = tally(windows_of(["NOUN", "VERB", "NOUN"], ["NOUN", "VERB", "NOUN"], PLAIN, rng, lost=["NOUN"]), 4, PLAIN)
    metrics = found.metrics()
    assert metrics["accuracy"] == 3 / 4
    assert metrics["recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert [c["support"] for c in found.report()["classes"]] == [0, 3, 0, 1]  # type: ignore[index]
