"""Answers to rows that need not be labelled: what every task's `predict` is made of.

`each` runs examples through the model in batches by length and gives what is read from the outputs in the examples'
order; a task says what to read. The rest turns scores into shares, and numbers into JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from finetune_trainer.batches.example import Example
from finetune_trainer.tasks.base import Mistake, Row, Task, role_of
from finetune_trainer.tasks.columns import text_problem

if TYPE_CHECKING:
    from finetune_trainer.evaluate.worst import Kept

T = TypeVar("T")
SIZE = 16
"""Examples at once."""
FEW = 20
"""So many classes, at most, are named with their scores."""


def each(
    model: Any,
    examples: Sequence[Example],
    pad_id: int,
    max_length: int,
    read: Callable[[Any, Sequence[Example]], Sequence[T]],
    size: int = SIZE,
    forward: Callable[[Any, Any], Any] | None = None,
) -> list[T]:
    """What `read(output, examples of the batch)` finds in the model's outputs, one value an example, in their order.

    `forward(model, micro-batch)` is for outputs that are not the model's own. The model is in eval mode, and the
    caller in torch.inference_mode().
    """
    from finetune_trainer.batches.collate import collate  # it brings torch, which the prepare step does without
    from finetune_trainer.batches.layout import order_by_length

    device = next(model.parameters()).device
    order = order_by_length(examples)
    found: dict[int, T] = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = collate([examples[i] for i in places], pad_id, max_length).to(device)
        values = read(forward(model, batch) if forward else model(**batch.inputs), batch.examples)
        found.update(zip(places, values, strict=True))
    return [found[i] for i in range(len(examples))]


def logits(model: Any, examples: Sequence[Example], pad_id: int, max_length: int) -> list[np.ndarray]:
    """The model's `logits` for each example, float64: [outputs], or [positions, outputs] without padding."""

    def read(output: Any, batch: Sequence[Example]) -> list[np.ndarray]:
        values = output.logits.double().cpu().numpy()
        return [row[: example.length] if row.ndim > 1 else row for row, example in zip(values, batch, strict=True)]

    return each(model, examples, pad_id, max_length, read)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares that add up to 1 over the last axis."""
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Each score as a share by itself."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * scores)))


def rounded(number: Any) -> float:
    """A number as answers show it: six digits after the point."""
    return round(float(number), 6)


def by_name(names: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    """Name -> share, the largest first."""
    order = np.argsort(-shares, kind="stable")
    return {names[i]: rounded(shares[i]) for i in order}


def most_likely(shares: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """{label, score, and scores of all classes where they are few}. shares: [classes]."""
    best = int(shares.argmax())
    scores = {"scores": by_name(labels, shares)} if len(labels) <= FEW else {}
    return {"label": labels[best], "score": rounded(shares[best]), **scores}


def input_problem(task: Task, row: Row, columns: Mapping[str, str]) -> str | None:
    """What keeps a row from being answered, or None; it need not have what is learned."""
    if task.check_input is not None:
        return task.check_input(row, columns)
    asked = (column for role, column in columns.items() if role_of(role) not in task.learned_roles)
    return next(filter(None, (text_problem(row, column) for column in asked)), None)


def written(value: Any) -> Any:
    """A row's value as JSON holds it: bytes (of an image, say) are left out, what else it does not know is text."""
    if isinstance(value, dict):
        return {str(key): written(each) for key, each in value.items() if not isinstance(each, bytes)}
    if isinstance(value, list | tuple):
        return [written(each) for each in value if not isinstance(each, bytes)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def another_class(kept: Kept, true: str, labels: Sequence[str], text: str = "", picture: str | None = None) -> Mistake:
    """A row that was taken for another class: both classes, and their shares."""
    said, share, of_true = kept.values
    figures = {"certainty": share, "share of the true class": of_true}
    return Mistake(text, true, labels[int(said)], figures, picture=picture)
