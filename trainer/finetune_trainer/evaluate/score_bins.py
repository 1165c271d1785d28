"""How scores rank rows, from counts in bins: memory does not grow with the rows.

A score is the logarithm of odds (the logit of a share), from -16 to 16, beyond which it counts as at the end: shares
from 1e-7 to 1 - 1e-7. Bins are narrow about even odds, where a model that has learned little puts all its scores (odds
told apart by 0.01 %), and widen with the score (by 5 % at the ends). Within a bin scores are tied.
Curves are those of the scores so rounded; scikit-learn gives the same for them (a test holds them together).
"""

from __future__ import annotations

import math

import numpy as np
import torch

BINS = 4096
REACH = 16
WARP = 32
"""Bins are alike in width up to about 1/WARP, and grow in proportion to the score beyond it."""
PER_UNIT = BINS // 2 / math.asinh(REACH * WARP)
"""Bins in one unit of the warped score."""
LENT = 5
"""Rows by which all classes together have a say in each one's best bin."""
MOST_CLASSES = 256
"""Of more classes no bins are kept (64 KiB each, added up over ranks at each evaluation)."""


def bins_of(odds: torch.Tensor) -> torch.Tensor:
    """The bin of each score, of any shape."""
    warped = (odds.double().clamp(-REACH, REACH) * WARP).asinh()
    return ((warped * PER_UNIT).floor().long() + BINS // 2).clamp(0, BINS - 1)


def floor_of(bin: int) -> float:
    """The lowest score of a bin."""
    return math.sinh((bin - BINS // 2) / PER_UNIT) / WARP


def count(bins: torch.Tensor, having: torch.Tensor) -> np.ndarray:
    """[2, classes, BINS]: rows without and with each class; bins and having (of 0 and 1) are [rows, classes]."""
    classes = bins.shape[1]
    cells = (having.long() * classes + torch.arange(classes, device=bins.device)) * BINS + bins
    return torch.bincount(cells.reshape(-1), minlength=2 * classes * BINS).double().cpu().numpy()


def auroc(without: np.ndarray, having: np.ndarray) -> np.ndarray:
    """Of each class, from its counts [classes, BINS]: the chance that a row with it has the higher score, ties half.

    nan where there are rows of one kind only.
    """
    below = np.cumsum(without, axis=1) - without
    wins = (having * (below + without / 2)).sum(1)
    pairs = without.sum(1) * having.sum(1)
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(without: np.ndarray, having: np.ndarray) -> np.ndarray:
    """Of each class: the precision at each score that a row with it has, in the mean over those rows.

    nan where no row has it.
    """
    hits = np.cumsum(having[:, ::-1], axis=1)
    taken = hits + np.cumsum(without[:, ::-1], axis=1)
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    rows = having.sum(1)
    total = (precision * having[:, ::-1]).sum(1)
    return np.divide(total, rows, out=np.full(len(rows), np.nan), where=rows > 0)


def best_bins(without: np.ndarray, having: np.ndarray) -> np.ndarray:
    """Of each class, the lowest bin that should count as having it: the one with the highest F1, counted on the class's
    rows and LENT further ones that have it, in the shares of all classes together (with the rows without that fall to
    so many). The nearest to an even share among equals; the even share itself where no row has any class.

    A bin that a few rows choose by themselves is chance, and the rows said to have a rare class cost micro-F1 more than
    its own are worth (Yang 2001, "A study of thresholding strategies for text categorization"; measured:
    docs/decisions/0033).
    """
    hits, said = (np.cumsum(each[:, ::-1], axis=1)[:, ::-1] for each in (having, having + without))
    rows = having.sum(1, keepdims=True)
    lent = LENT / max(1, rows.sum())
    both = said + rows + lent * (said.sum(0) + rows.sum())
    f1 = 2 * (hits + lent * hits.sum(0)) / np.maximum(both, 1)
    far = np.abs(np.arange(BINS) - BINS // 2)
    best = f1 >= f1.max(1, keepdims=True) - 1e-12
    return np.where(best, far, BINS).argmin(1)


def mean_where_defined(values: np.ndarray, otherwise: float) -> float:
    """The mean of what is no nan; `otherwise` where all are."""
    found = values[~np.isnan(values)]
    return float(found.mean()) if len(found) else otherwise
