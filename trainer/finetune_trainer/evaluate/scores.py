"""Scores from a confusion matrix [true, predicted]; equal to scikit-learn's with zero_division=0 (a test holds them
together).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def accuracy(confusion: np.ndarray) -> float:
    """Share of rows on the diagonal; nan without rows."""
    rows = confusion.sum()
    return float(confusion.trace() / rows) if rows else float("nan")


def f1(confusion: np.ndarray) -> np.ndarray:
    """F1 of each class over the last two axes; 0 where a class is neither true nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(-1) + confusion.sum(-2)
    return np.divide(2.0 * hits, either, out=np.zeros(hits.shape), where=either > 0)


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 over the classes that occur, as true or as predicted."""
    seen = (confusion.sum(0) + confusion.sum(1)) > 0
    return float(f1(confusion)[seen].mean()) if seen.any() else float("nan")


def class_scores(confusion: np.ndarray, labels: Sequence[str]) -> list[dict[str, float | str | int]]:
    """Precision, recall, F1 and support of each class, in the labels' order."""
    hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision = np.divide(hits, predicted, out=np.zeros(len(labels)), where=predicted > 0)
    recall = np.divide(hits, true, out=np.zeros(len(labels)), where=true > 0)
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(labels, precision, recall, f1(confusion), true, strict=True)
    ]
