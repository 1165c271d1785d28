"""Scores of classes from counts, or from a confusion matrix [true, predicted]; equal to scikit-learn's with
zero_division=0 (a test holds them together).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def f1(hits: np.ndarray, either: np.ndarray) -> np.ndarray:
    """F1 of each class; `either`: times that it is true and times that it is predicted. 0 where it is neither."""
    return np.divide(2.0 * hits, either, out=np.zeros(np.shape(hits)), where=either > 0)


def macro_f1(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 over the classes that occur, as true or as predicted."""
    either = true + predicted
    return float(f1(hits, either)[either > 0].mean()) if either.any() else float("nan")


def weighted_f1(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 over the rows' true classes."""
    return float(f1(hits, true + predicted) @ true / true.sum()) if true.any() else float("nan")


def mcc(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews' correlation of the true and the predicted class (Gorodkin 2004 for more than two); 0 where either is
    always the same.
    """
    rows, right = true.sum(), hits.sum()
    spread = (rows * rows - predicted @ predicted) * (rows * rows - true @ true)
    return float((right * rows - true @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0


def binary_mcc(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, rows: float) -> np.ndarray:
    """Matthews' correlation of each class with its prediction, each class by itself; 0 where either is always the
    same.
    """
    spread = true * (rows - true) * predicted * (rows - predicted)
    return np.divide(hits * rows - true * predicted, np.sqrt(spread), out=np.zeros(len(hits)), where=spread > 0)


def class_scores(
    hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, labels: Sequence[str]
) -> list[dict[str, float | str | int]]:
    """Precision, recall, F1 and support of each class, in the labels' order."""
    precision = np.divide(hits, predicted, out=np.zeros(len(labels)), where=predicted > 0)
    recall = np.divide(hits, true, out=np.zeros(len(labels)), where=true > 0)
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(labels, precision, recall, f1(hits, true + predicted), true, strict=True)
    ]
