"""What every `predict` is made of: answers come in the rows' order and do not hang on the rows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.batches.example import Example
from finetune_trainer.model.load import load_model
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.tasks.answers import each, input_problem, logits, sigmoid, softmax
from finetune_trainer.tasks.base import Draw, JobFacts
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.tasks.text_classification import asked
from support.models import mails

LABELS = ("ham", "spam")
TASK = task_for("text-classification")
FACTS = JobFacts({"text": "text", "label": "label"}, LABELS)


@pytest.fixture(scope="module")
def loaded(bert: Path) -> tuple[Any, Any]:
    tokenizer = load_tokenizer(bert)
    return load_model(bert, TASK.head, labels=LABELS, seed=3, pad_id=tokenizer.pad_id).eval(), tokenizer


def test_answers_are_those_of_each_row_alone_in_the_rows_order(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    rows = mails(37, seed=2)
    examples = [asked(row, FACTS, tokenizer, 64) for row in rows]
    widths = []

    def lengths_of(output: Any, batch: Sequence[Example]) -> list[int]:
        widths.append(len(batch))
        return [example.length for example in batch]

    with torch.inference_mode():
        found = logits(model, examples, tokenizer.pad_id, 64)
        alone = [model(input_ids=torch.tensor([e.input_ids])).logits[0].double().numpy() for e in examples]
        lengths = each(model, examples, tokenizer.pad_id, 64, lengths_of)
    assert np.allclose(found, alone, atol=1e-5)
    assert lengths == [e.length for e in examples]
    assert widths == [16, 16, 5]


def test_a_row_is_given_to_the_model_as_when_it_was_learned(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    for row in mails(5, seed=4):
        (learned,) = TASK.encode(row, FACTS, tokenizer, 16, Draw())
        assert asked({"text": row["text"]}, FACTS, tokenizer, 16).inputs(16, 0) == learned.inputs(16, 0)


def test_classification_answers_with_the_class_and_its_share(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    rows = [{"text": row["text"]} for row in mails(20, seed=6)]
    with torch.inference_mode():
        found = TASK.predict(model, rows, FACTS, {}, tokenizer, 64)
        more = JobFacts(FACTS.columns, [*LABELS, *map(str, range(30))])
        many = TASK.predict(model, rows[:1], more, {}, tokenizer, 64)
    for answer in found:
        assert answer["scores"].keys() == set(LABELS)
        assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert answer["score"] == max(answer["scores"].values()) == answer["scores"][answer["label"]]
    assert many[0].keys() == {"label", "score"}, "hundreds of classes are not all written"


@pytest.mark.parametrize(
    ("row", "words"),
    [({}, "missing or null"), ({"text": None}, "missing or null"), ({"text": 3}, "int, not text"), ({"text": ""}, "")],
)
def test_a_row_needs_what_is_asked_and_not_what_is_learned(row: dict[str, Any], words: str) -> None:
    problem = input_problem(TASK, row, FACTS.columns)
    assert (problem is None) if not words else (words in str(problem))
    chat = task_for("causal-lm")
    assert "completion" in chat.learned_roles


def test_shares_are_shares_however_large_the_scores() -> None:
    assert softmax(np.array([1000.0, 0.0, -1000.0])).tolist() == [1, 0, 0]
    assert softmax(np.zeros((2, 4))).tolist() == [[0.25] * 4] * 2
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0, 0.5, 1]
    assert sigmoid(np.array([1.5])) == pytest.approx(1 / (1 + np.exp(-1.5)))
