"""Any number of classes a row: each class's hits, the rows' overlap, and how well the scores rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate import score_bins
from finetune_trainer.evaluate.intervals import ratio_interval, wilson
from finetune_trainer.evaluate.score_bins import (
    BINS,
    MOST_CLASSES,
    auroc,
    average_precision,
    best_bins,
    floor_of,
    mean_where_defined,
)
from finetune_trainer.evaluate.scores import binary_mcc, class_scores, f1
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

EVEN = 0.5
"""The share from which a class counts as the row's, where nothing else was chosen."""
CHOOSE = "choose"
"""In the place of thresholds: the rows that are counted choose them."""
INVENTED, MISSED = "invented", "missed"
"""Rows that are said to have a class which they do not have, by its share, and those that do not get one of theirs."""
SUMS = 8
COUNTED = ("loss", "micro-f1", "macro-f1", "sample-f1", "subset-accuracy", "mcc")
RANKED = (*COUNTED, "auroc", "average-precision")


class MultiLabelTally:
    """Sums over rows: loss, rows, rows that are all right, F1 of the row; with y = 2·hits and x = true + predicted
    classes of a row: y², x², xy, and rows without any. Then hits, true and predicted of each class; then, of at most
    MOST_CLASSES classes, the rows without and with each by its score.

    `thresholds`: the share from which each class counts as the row's; None: EVEN. CHOOSE: what is counted by class is
    judged at the thresholds that these rows choose, where the classes are few. What is counted by row cannot be: there
    it is EVEN.
    """

    def __init__(self, labels: tuple[str, ...], thresholds: Sequence[float] | str | None = None) -> None:
        n = len(labels)
        self.labels, self.few = labels, n <= MOST_CLASSES
        self.chooses = thresholds == CHOOSE and self.few
        self._given = [EVEN] * n if thresholds is None or isinstance(thresholds, str) else [*thresholds]
        self.vector = np.zeros(SUMS + 3 * n + (2 * n * BINS if self.few else 0))

    @property
    def thresholds(self) -> list[float]:
        """Those in force."""
        return self.decision()["thresholds"] if self.chooses else self._given

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each class: rows that have it and are said to, that have it, that are said to."""
        hits, true, predicted = self.vector[SUMS : SUMS + 3 * len(self.labels)].reshape(3, -1)
        if self.chooses:
            said = np.arange(BINS) >= best_bins(*self.ranked)[:, None]
            without, hits = ((each * said).sum(1) for each in self.ranked)
            predicted = without + hits
        return hits, true, predicted

    @property
    def ranked(self) -> np.ndarray:
        """[2, classes, BINS]: rows without and with each class by its score, where the classes are few."""
        return self.vector[SUMS + 3 * len(self.labels) :].reshape(2, len(self.labels), BINS)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [rows, classes], labels [rows, classes] of 0 and 1."""
        assert losses.outputs is not None
        scores, true = losses.outputs.double(), batch.labels > 0
        said = scores.sigmoid() >= torch.tensor(self._given, dtype=torch.float64, device=scores.device)
        if worst is not None:
            _tell(worst, scores, true, said, batch)
        hit = true & said
        y, x = (2 * hit.sum(1)).double(), (true.sum(1) + said.sum(1)).double()
        rows = torch.where(x > 0, y / x.clamp(min=1), 1.0)
        n = len(self.labels)
        sums = [losses.sums.double().sum(), len(y), (true == said).all(1).sum(), rows.sum(), y @ y, x @ x, x @ y]
        self.vector[:SUMS] += [float(value) for value in (*sums, (x == 0).sum())]
        counts = torch.cat([each.sum(0) for each in (hit, true, said)])
        self.vector[SUMS : SUMS + 3 * n] += counts.double().cpu().numpy()
        if self.few:
            self.vector[SUMS + 3 * n :] += score_bins.count(score_bins.bins_of(scores), true)

    def metrics(self) -> dict[str, float]:
        """loss; micro-f1 over all pairs of row and class; macro-f1, mcc, auroc and average-precision in the mean over
        classes (the last two over those that they are defined for, where the classes are few); sample-f1 in the mean
        over rows, 1 for a row that rightly gets none; subset-accuracy: rows that are all right.
        """
        loss, rows, right, by_row = self.vector[:4]
        hits, true, predicted = self.counts
        if not rows:
            return dict.fromkeys(RANKED if self.few else COUNTED, math.nan)
        found = {
            "loss": float(loss / rows),
            "micro-f1": float(f1(hits.sum(), true.sum() + predicted.sum())),
            "macro-f1": float(f1(hits, true + predicted).mean()),
            "sample-f1": float(by_row / rows),
            "subset-accuracy": float(right / rows),
            "mcc": float(binary_mcc(hits, true, predicted, rows).mean()),
        }
        if self.few:
            found["auroc"] = mean_where_defined(auroc(*self.ranked), 0.5)
            found["average-precision"] = mean_where_defined(average_precision(*self.ranked), 0.0)
        return found

    def intervals(self) -> dict[str, float]:
        """subset-accuracy by Wilson's interval; micro-f1 as a ratio of sums over rows, where these do not choose."""
        _, rows, right, _, yy, xx, xy, _ = self.vector[:SUMS]
        right_low, right_high = wilson(right, rows)
        found = {"subset-accuracy-low": right_low, "subset-accuracy-high": right_high}
        if not self.chooses:
            hits, true, predicted = self.counts
            low, high = ratio_interval(2 * hits.sum(), true.sum() + predicted.sum(), yy, xx, xy, rows)
            found["micro-f1-low"] = 0.0 if math.isnan(low) else max(0.0, low)
            found["micro-f1-high"] = 1.0 if math.isnan(high) else min(1.0, high)
        return found

    def decision(self) -> dict[str, Any]:
        """`thresholds`: of each class, the share at which its F1 is highest on these rows, as `best_bins` counts it."""
        if not self.few:
            return {}
        return {"thresholds": [_share(floor_of(int(bin))) for bin in best_bins(*self.ranked)]}

    def report(self) -> dict[str, Any]:
        """Scores by class."""
        classes = class_scores(*self.counts, self.labels)
        found: dict[str, Any] = {
            "classes": [{**each, "threshold": t} for each, t in zip(classes, self.thresholds, strict=True)],
            "labels": list(self.labels),
        }
        if not self.few:
            more = f"With more than {MOST_CLASSES} classes no thresholds are chosen:"
            found["notes"] = [f"{more} each counts from a share of {EVEN}."]
        return found


def _tell(worst: Worst, scores: torch.Tensor, true: torch.Tensor, said: torch.Tensor, batch: MicroBatch) -> None:
    """Of each row the class that is furthest off. Values: the class, and its share."""
    for kind, where, sign in ((INVENTED, said & ~true, 1.0), (MISSED, true & ~said, -1.0)):
        furthest, classes = (sign * scores).masked_fill(~where, -math.inf).max(1)
        shares = (sign * furthest).sigmoid()
        for example, *each in zip(batch.examples, furthest.tolist(), classes.tolist(), shares.tolist(), strict=True):
            wrong, label, share = each
            if wrong > -math.inf:
                worst.take(kind, worst.row_of(example), wrong, 0.0, (label, share))


def _share(odds: float) -> float:
    """As it is stored, and compared with: not above the score itself, so that this still counts."""
    share = 1 / (1 + math.exp(-odds))
    short = float(f"{share:.9g}")
    return short if short <= share else float(f"{share * (1 - 1e-9):.9g}")
