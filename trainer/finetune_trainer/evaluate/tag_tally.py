"""Plain tags, one a word: the confusion matrix over words, and the metrics that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.tagged import TaggedExample
from finetune_trainer.evaluate.intervals import ratio_interval
from finetune_trainer.evaluate.scores import class_scores
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

WRONG = "wrong"
"""Rows by how many of their words have the wrong tag, or of their entities are wrong or missed."""


class TagTally:
    """Counts [true tag, answer], the last answer being none; loss, losses; of examples the sums of right answers h and
    words w, then h², w², h·w, and how many there are.

    Words that the model does not see are answered with none, which is wrong.
    """

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.vector = np.zeros((len(labels) + 1) ** 2 + 8)

    @property
    def confusion(self) -> np.ndarray:
        """Counts [true tag, answer]; the last of both is none, which is nobody's tag."""
        n = len(self.labels) + 1
        return self.vector[: n * n].reshape(n, n)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [losses, tags], by examples and positions."""
        assert losses.outputs is not None
        sums, counts = self.vector[-8:], self.confusion
        sums[:2] += [float(losses.sums.double().sum()), float(losses.counts.sum())]
        for example, answers in answers_by_example(losses.outputs, batch):
            lost = example.row.lost_tags if example.first == 0 else ()
            true, found = [*example.learned, *lost], [*answers, *(len(self.labels) for _ in lost)]
            np.add.at(counts, (true, found), 1)
            hits, words = sum(a == b for a, b in zip(true, found, strict=True)), len(true)
            if worst is not None:
                worst.add(WRONG, example, words - hits)
            sums[2:] += [hits, words, hits * hits, words * words, hits * words, 1]

    def metrics(self) -> dict[str, float]:
        """loss, accuracy of words; f1, precision and recall as means over the tags that occur; macro-f1 is f1."""
        loss, losses, hits, words = self.vector[-8:][:4]
        counts = self.confusion
        seen = [bool(n) for n in (counts.sum(0) + counts.sum(1))[:-1]]
        scores = [score for score, occurs in zip(self._scores(), seen, strict=True) if occurs]
        means = {
            name: float(np.mean([score[name] for score in scores])) if scores else 0.0
            for name in ("f1", "precision", "recall")
        }
        return {
            "loss": float(loss / losses) if losses else math.nan,
            **means,
            "macro-f1": means["f1"],
            "accuracy": float(hits / words) if words else math.nan,
        }

    def intervals(self) -> dict[str, float]:
        """Of accuracy, from the spread of rows: the words of a row are not independent."""
        low, high = ratio_interval(*self.vector[-6:])
        return {} if math.isnan(low) else {"accuracy-low": max(0.0, low), "accuracy-high": min(1.0, high)}

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> dict[str, Any]:
        """Scores by tag and the confusion matrix."""
        counts = self.confusion[:-1, :-1].astype(int).tolist()
        return {"words": ("Tags", "tag", "words"), "classes": self._scores(), "confusion": counts}

    def _scores(self) -> list[dict[str, Any]]:
        counts = self.confusion
        return class_scores(counts.diagonal(), counts.sum(1), counts.sum(0), (*self.labels, ""))[:-1]


def answers_by_example(outputs: torch.Tensor, batch: MicroBatch) -> Iterator[tuple[TaggedExample, list[int]]]:
    """Each example with the likeliest outputs at its own words; outputs are [losses, outputs]."""
    answers, start = outputs.argmax(-1).tolist(), 0
    for example in batch.examples:
        assert isinstance(example, TaggedExample)
        end = start + example.losses
        yield example, answers[start:end]
        start = end


def ratio(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return float(part / whole) if whole else 0.0
