"""The best answer in each window: the span of the context whose start and end score highest together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BestSpans:
    """One entry a window: the score of "no answer", and the best span's score and positions (the last included).

    A score is the sum of two logits.
    """

    null: np.ndarray
    score: np.ndarray
    start: np.ndarray
    end: np.ndarray


def best_spans(logits: np.ndarray, null: np.ndarray, most: int) -> BestSpans:
    """Over all spans of at most `most` tokens, exactly; of equal ones the shortest, then the first.

    logits [windows, 2, tokens]: of starts and of ends, -inf where none can be. null [windows]: the place for "no
    answer", which is no part of a span.
    """
    rows, width = np.arange(len(logits)), logits.shape[-1]
    starts, ends = logits[:, 0].copy(), logits[:, 1].copy()
    nulls = starts[rows, null] + ends[rows, null]
    starts[rows, null] = ends[rows, null] = -np.inf
    score, start, end = np.full(len(logits), -np.inf), null.copy(), null.copy()
    for more in range(min(most, width)):
        sums = starts[:, : width - more] + ends[:, more:]
        at = sums.argmax(1)
        found = sums[rows, at]
        better = found > score
        score = np.where(better, found, score)
        start, end = np.where(better, at, start), np.where(better, at + more, end)
    return BestSpans(nulls, score, start, end)
