"""95 % confidence intervals from sums alone, the same for the same counts whatever the run (fixed seed).

Drawing rows with replacement is drawing the cells of the confusion matrix from a multinomial, so the bootstrap needs no
rows. Sources: Wilson 1927 (proportions); Efron & Tibshirani 1993 (percentile bootstrap); Cochran 1977, 6.3 (ratios).
"""

from __future__ import annotations

import math

import numpy as np

Z = 1.959963984540054
DRAWS = 2000
CHUNK = 4_000_000
"""Cells drawn at a time: bounds memory with many classes."""


def wilson(hits: float, rows: float) -> tuple[float, float]:
    """Bounds of a proportion; (0, 1) without rows."""
    if rows <= 0:
        return 0.0, 1.0
    p, z2 = hits / rows, Z * Z / rows
    middle, half = p + z2 / 2, Z * math.sqrt(p * (1 - p) / rows + z2 / (4 * rows))
    return float(max(0.0, (middle - half) / (1 + z2))), float(min(1.0, (middle + half) / (1 + z2)))


def bootstrap_macro_f1(confusion: np.ndarray, draws: int = DRAWS) -> tuple[float, float]:
    """Percentile bootstrap of macro-F1 over rows; (0, 1) without rows.

    Classes that a draw misses are left out of its mean.
    """
    rows = int(confusion.sum())
    if rows == 0:
        return 0.0, 1.0
    n = confusion.shape[0]
    true, predicted = np.nonzero(confusion)
    share = confusion[true, predicted] / rows
    rng = np.random.default_rng(0)
    values, step = [], max(1, CHUNK // max(1, len(share)))
    for start in range(0, draws, step):
        counts = rng.multinomial(rows, share, size=min(step, draws - start)).astype(float)
        by_true, by_predicted, hits = (np.zeros((len(counts), n)) for _ in range(3))
        for cell in range(len(share)):
            by_true[:, true[cell]] += counts[:, cell]
            by_predicted[:, predicted[cell]] += counts[:, cell]
            if true[cell] == predicted[cell]:
                hits[:, true[cell]] += counts[:, cell]
        either = by_true + by_predicted
        scores = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
        values.append(scores.sum(1) / (either > 0).sum(1))
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(y: float, x: float, yy: float, xx: float, xy: float, rows: float) -> tuple[float, float]:
    """Bounds of sum(y)/sum(x) over independent rows from the sums of y, x, y², x², xy; both the ratio itself below two
    rows.
    """
    if x <= 0:
        return math.nan, math.nan
    ratio = y / x
    if rows < 2:
        return ratio, ratio
    residual = max(0.0, yy - 2 * ratio * xy + ratio * ratio * xx)
    half = Z * math.sqrt(residual * rows / (rows - 1)) / x
    return float(ratio - half), float(ratio + half)
