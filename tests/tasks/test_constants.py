"""The constant answers of all tasks, judged by the tasks' own objectives and tallies, equal those of scikit-learn's
dummies that have seen the same training rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_squared_error

from finetune_api.answering import QuestionAnswering
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.span_example import Asked, SpanExample
from finetune_trainer.batches.tagged import TaggedExample, TaggedRow
from finetune_trainer.objectives.constant import constantly
from finetune_trainer.stream.profile import Spread
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.registry import TASKS, task_for

LABELS = ("a", "b", "c", "d")
SEEDS = range(25)


def judged(task: str, facts: JobFacts, labels: Any, examples: tuple[Any, ...] = (), width: int = 1) -> dict[str, float]:
    """The constant answer's figures on these rows, in two micro-batches."""
    value = task_for(task)
    constant = value.constant(facts)
    assert constant is not None
    tally = value.tally(facts, constant.decision)
    objective = constantly(value.objective(facts.judging), constant.outputs, tokens=constant.tokens)
    middle = len(labels) // 2
    for part in (slice(middle), slice(middle, None)):
        given = torch.tensor(np.asarray(labels[part]))
        batch = MicroBatch({"x": torch.zeros(len(given), width)}, given, len(given), 0, examples[part])
        tally.add(objective(None, batch), batch)
    return tally.metrics()


@pytest.mark.parametrize("task", ["text-classification", "image-classification"])
def test_one_class_a_row_is_the_most_frequent_one(task: str) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        train, test = (rng.choice(4, n, p=rng.dirichlet(np.ones(4))) for n in (20, 30))
        facts = JobFacts({}, LABELS, np.bincount(train, minlength=4).tolist(), task_for(task).defaults, rows=20)
        mine, dummy = judged(task, facts, test), DummyClassifier(strategy="most_frequent").fit(train[:, None], train)
        said = dummy.predict(test[:, None])
        assert mine["accuracy"] == pytest.approx(accuracy_score(test, said), abs=1e-6)
        assert mine["macro-f1"] == pytest.approx(f1_score(test, said, average="macro", zero_division=0), abs=1e-6)
        if "mcc" in mine:
            assert mine["mcc"] == pytest.approx(matthews_corrcoef(test, said), abs=1e-6)
            assert mine["auroc"] == pytest.approx(0.5, abs=1e-6)
        assert np.isfinite(mine["loss"]), "a class that no training row had is not impossible"


def test_any_number_of_classes_are_those_of_most_rows() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        shares = rng.random(4)
        train, test = ((rng.random((n, 4)) < shares).astype(int) for n in (20, 30))
        train[0], train[1] = 0, 1  # scikit-learn's answer needs both
        facts = JobFacts({}, LABELS, train.sum(0).tolist(), rows=20)
        said = DummyClassifier(strategy="most_frequent").fit(train, train).predict(test)
        mine = judged("multi-label-classification", facts, test)
        for average in ("micro", "macro", "samples"):
            wanted = f1_score(test, said, average=average, zero_division=1 if average == "samples" else 0)
            assert mine[f"{average.removesuffix('s')}-f1"] == pytest.approx(wanted, abs=1e-6)
        assert mine["subset-accuracy"] == pytest.approx(accuracy_score(test, said), abs=1e-6)


def test_numbers_are_their_mean() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        train, test = rng.normal(3, 2, 20), rng.normal(2, 3, 30).astype(np.float32)
        facts = JobFacts({}, spread=Spread(train.min(), train.max(), 99.0, train.std(), train.mean()))
        said = DummyRegressor(strategy="mean").fit(train[:, None], train).predict(test[:, None])
        mine = judged("text-regression", facts, test)
        assert mine["rmse"] == pytest.approx(mean_squared_error(test, said) ** 0.5, abs=1e-6)
        assert mine["loss"] == pytest.approx(mean_squared_error(test, said) / train.var(), rel=1e-5)
        assert (mine["pearson"], mine["spearman"]) == (0.0, 0.0)


def test_tags_are_the_one_that_most_rows_have_and_entities_none() -> None:
    rows = [[0, 1, 1, 2], [1, 3, 1, 1]]
    examples = tuple(
        TaggedExample([5] * 4, None, 4, tags, TaggedRow(4, 1, ((0, 1, 0),) if entity else ()), 0)
        for tags, entity in zip(rows, (True, False), strict=True)
    )
    plain = judged("token-classification", JobFacts({}, LABELS, [3, 9, 9, 1]), rows, examples, width=4)
    assert plain["accuracy"] == 5 / 8
    rows[1][1] = 2
    entities = JobFacts({}, ("O", "B-x", "I-x"))
    found = judged("token-classification", entities, rows, examples, width=4)
    assert (found["f1"], found["recall"], found["accuracy"]) == (0.0, 0.0, 1 / 8)


def test_questions_have_no_answer() -> None:
    asked = [Asked(0, "a red fox", ("red",), 1), Asked(1, "a red fox", (), 1), Asked(2, "a dog", (), 2)]
    examples = tuple(
        SpanExample([1, 2, 3, 4], None, 4, each, [(0, 1), (2, 5)], 2, 0, (3, 3) if each.answers else (0, 0))
        for each in (*asked, asked[2])
    )
    labels = [example.labels(4) for example in examples]
    facts = JobFacts({}, settings=QuestionAnswering())
    found = judged("question-answering", facts, labels, examples, width=4)
    assert (found["exact-match"], found["answer-f1"]) == (2 / 3, 2 / 3)
    assert found["loss"] == pytest.approx(np.log(3))


def test_only_language_models_have_none() -> None:
    facts = {
        "text-regression": JobFacts({}, spread=Spread(0, 1, 0.5, 0.1)),
        "question-answering": JobFacts({}, settings=QuestionAnswering()),
    }
    usual = JobFacts({}, LABELS, [1, 2, 3, 4], rows=9)
    assert {name for name, task in TASKS.items() if task.constant(facts.get(name, usual)) is None} == {
        "causal-lm",
        "masked-lm",
    }
    assert task_for("text-classification").constant(usual).words == "always 'd'"
    assert task_for("multi-label-classification").constant(usual).words == "no class"
