"""Rows of each task that a tiny model can learn in a few dozen steps, by the task's name.

A task that is added to the contract gets its line here: without one the matrix fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.entities import tagged
from support.image_families import COLOURS, image_folder
from support.models import HAM, SPAM, mails, questions, write_jsonl

Rows = list[dict[str, Any]]


def _classes(count: int, seed: int) -> Rows:
    """Two words to each class: a head on a trunk of new weights, which hardly mixes them, has to tell them apart."""
    rng, words = random.Random(seed), {"ham": HAM[:2], "spam": SPAM[:2]}
    labels = [name for _ in range(count // 2) for name in words]
    return [{"text": " ".join(rng.choices(words[name], k=rng.randint(4, 10))), "label": name} for name in labels]


def _texts(count: int, seed: int) -> Rows:
    rng = random.Random(seed)
    return [{"text": " ".join(rng.choices(HAM[:3], weights=(8, 2, 1), k=rng.randint(8, 16)))} for _ in range(count)]


def _completions(count: int, seed: int) -> Rows:
    return [{"prompt": row["text"], "completion": "lunch"} for row in mails(count, seed, words=(1, 2))]


def _questions(count: int, seed: int) -> Rows:
    return questions(count, seed, words=(4, 8))


def _several(count: int, seed: int) -> Rows:
    """A head starts at how often each class occurs, so that the loss falls by what is seen in the rows alone."""
    rng, words = random.Random(seed), {"ham": HAM[:2], "spam": SPAM[:2]}
    drawn = [rng.choice((["ham"], ["spam"], ["ham", "spam"])) for _ in range(count)]
    return [
        {
            "text": " ".join(rng.choices([word for name in names for word in words[name]], k=rng.randint(6, 12))),
            "labels": names,
        }
        for names in drawn
    ]


def _scores(count: int, seed: int) -> Rows:
    return [{"text": row["text"], "score": float(row["label"] == "spam")} for row in _classes(count, seed)]


def _images(folder: Path, count: int, seed: int) -> str:
    root = image_folder(folder / f"images-{seed}", count // len(COLOURS), start=1000 * seed)
    return f"{root.as_uri()}/**"


ROWS: dict[str, Callable[[int, int], Rows]] = {
    "text-classification": _classes,
    "multi-label-classification": _several,
    "text-regression": _scores,
    "token-classification": tagged,
    "question-answering": _questions,
    "causal-lm": _completions,
    "masked-lm": _texts,
}
"""(count, seed) -> rows that may stand in a line of JSON."""

WRITERS: dict[str, Callable[[Path, int, int], str]] = {"image-classification": _images}
"""(folder, count, seed) -> the URI of data that are no lines of JSON."""


def write(folder: Path, task: str, count: int, seed: int) -> str:
    """Training rows of the task in this folder; their URI."""
    if task in WRITERS:
        return WRITERS[task](folder, count, seed)
    return write_jsonl(folder / f"{task}-{seed}.jsonl", ROWS[task](count, seed)).as_uri()
