"""Token lengths from the sample: what maxLength should be, how much it cuts, and whether anything is left to learn.

Lengths are estimated (tokenising everything takes minutes for a million rows); a job that would learn nothing is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding, Lengths
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.prepare.survey import Sampled
from finetune_trainer.tasks.base import Task, Unlearnable

UNCUT = 1 << 30


@dataclass(frozen=True, slots=True)
class Measured:
    """Lengths in tokens of the sampled rows before any cut, 0 where even the whole row has nothing to learn."""

    rows: Sequence[Sampled]
    lengths: np.ndarray
    troubles: Mapping[int, str]

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    def quantile(self, share: float) -> int:
        """The smallest length that so many rows do not exceed."""
        return int(np.quantile(self.lengths, share, method="inverted_cdf")) if len(self.lengths) else 0


def measure(
    rows: Sequence[Sampled], task: Task, columns: Mapping[str, str], labels: Sequence[str] | None, tokenizer: Tokenizer
) -> Measured:
    """Encode the sample without cutting."""
    lengths, troubles = np.zeros(len(rows), dtype=np.int64), {}
    for n, row in enumerate(rows):
        try:
            lengths[n] = task.encode(row.values, columns, labels, tokenizer, UNCUT).length
        except Unlearnable as error:
            troubles[n] = str(error)
    return Measured(rows, lengths, troubles)


def judge(
    measured: Measured, task: Task, columns: Mapping[str, str], labels: Sequence[str] | None, tokenizer: Tokenizer, max_length: int, train_rows: int,
) -> tuple[Lengths, int, list[Finding]]:  # fmt: skip
    """Quantiles, estimated tokens of an epoch and findings at this maxLength. Raises JobError when no sampled row teaches anything."""
    rows, lengths = measured.rows, measured.lengths
    troubles = dict(measured.troubles)
    for n in np.flatnonzero(lengths > max_length).tolist() if labels is None else ():  # a class is never cut off
        try:
            task.encode(rows[n].values, columns, labels, tokenizer, max_length)
        except Unlearnable as error:
            troubles[n] = str(error)
    if rows and len(troubles) == len(rows):
        first = rows[min(troubles)]
        raise JobError(
            Reason.NOTHING_TO_LEARN, f"{first.file}:{first.line}: {troubles[min(troubles)]}. So it is with all {len(rows)} rows looked at",
            field="spec.training.maxLength" if not measured.troubles else "spec.data.columns",
        )  # fmt: skip
    cut = float((lengths > max_length).mean()) if len(lengths) else 0.0
    tokens = int(np.minimum(lengths, max_length).mean() * train_rows) if len(lengths) else 0
    findings = []
    if troubles:
        n = min(troubles)
        share = len(troubles) / len(rows)
        findings.append(Finding(
            kind="NothingToLearn", count=max(1, round(share * train_rows)), file=rows[n].file[-256:], line=rows[n].line,
            message=f"In {share:.1%} of the rows looked at nothing is left to learn: {troubles[n]}"[:384],
        ))  # fmt: skip
    if cut > 0:
        n = int(np.flatnonzero(lengths > max_length)[0])
        findings.append(Finding(
            kind="Truncated", count=max(1, round(cut * train_rows)), file=rows[n].file[-256:], line=rows[n].line,
            message=f"About {cut:.1%} of the rows are longer than maxLength {max_length} and are cut; the longest seen has "
            f"{measured.longest} tokens. Raise spec.training.maxLength if what is cut matters.",
        ))  # fmt: skip
    quantiles = Lengths(
        p50=measured.quantile(0.5), p95=measured.quantile(0.95), max=measured.longest, truncated_fraction=round(cut, 6)
    )
    return quantiles, tokens, findings
