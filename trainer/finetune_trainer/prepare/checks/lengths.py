"""What maxLength should be and how much it cuts, and whether anything is left to learn.

A job that would learn nothing is refused. What the model's chat template leaves out of the rows is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.resolve import resolve
from finetune_api.run import RunConfig
from finetune_api.status import Finding, Lengths, Resolved
from finetune_api.text import clip
from finetune_trainer.model.facts import width
from finetune_trainer.model.processor import Processor
from finetune_trainer.prepare.checks.model import ModelFacts
from finetune_trainer.prepare.rows.evidence import Evidence
from finetune_trainer.prepare.rows.lengths import Measured, measure
from finetune_trainer.prepare.rows.sample import SampledRow
from finetune_trainer.stream.splits import SET
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn, Task


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """`resolved`: what the spec left open. `lengths`, `tokens_per_epoch` and `ends` are those of the training rows."""

    resolved: Resolved
    lengths: Lengths
    tokens_per_epoch: int
    ends: tuple[int, ...]
    findings: tuple[Finding, ...]


def check_lengths(
    config: RunConfig,
    task: Task,
    model: ModelFacts,
    facts: JobFacts,
    evidence: Evidence,
    split_rows: Mapping[str, int],
    fold_rows: Sequence[int] = (),
) -> LengthCheck:
    """Resolve what depends on the rows' lengths, and judge the sample of each source by it. Raises JobError.

    `fold_rows`: training rows of each fold.
    """

    def measured(role: str) -> Measured:
        return measure(evidence.rows_to_measure(role, model.tokenizer), task, facts, model.tokenizer)

    def judged(role: str, found: Measured) -> tuple[Lengths, int, list[Finding]]:
        quantiles, tokens, findings = _check_split(found, task, facts, model.tokenizer, max_length, split_rows[role])
        findings += _omissions(found, role, evidence.surveys[role].usable, task, facts.columns, model.tokenizer)
        return quantiles, tokens, findings

    train = measured("train")
    resolved = resolve(
        config,
        train_rows=split_rows["train"],
        model_max_length=model.max_length,
        longest_row=train.longest,
        p99_length=train.quantile(0.99),
        width=width(model.config),
        rounds=[split_rows["train"] - held for held in fold_rows],
    )
    assert resolved.max_length is not None
    max_length = resolved.max_length
    lengths, tokens, findings = judged("train", train)
    for role in evidence.surveys:
        if role != "train":
            findings += judged(role, measured(role))[2]
    return LengthCheck(resolved, lengths, tokens, train.ends, tuple(findings))


def _check_split(
    measured: Measured, task: Task, facts: JobFacts, tokenizer: Processor, max_length: int, train_rows: int
) -> tuple[Lengths, int, list[Finding]]:
    """Quantiles, estimated tokens of an epoch and findings at this maxLength.

    Raises JobError when no sampled row teaches anything.
    """
    rows, lengths = measured.rows, measured.lengths
    troubles = dict(measured.troubles)
    taken = np.minimum(lengths, max_length)
    too_long = np.flatnonzero(lengths > max_length).tolist()
    for n in () if task.info.exclusive else too_long:  # a row's one class is never cut off
        try:
            encoded = task.encode(rows[n].values, facts, tokenizer, max_length, Draw(row=n))
            taken[n] = sum(example.length for example in encoded)
        except NothingToLearn as error:
            troubles[n] = str(error)
    if rows and len(troubles) == len(rows):
        first = rows[min(troubles)]
        raise JobError(
            Reason.NOTHING_TO_LEARN,
            f"{first.file}:{first.line}: {troubles[min(troubles)]}. So it is with all {len(rows)} rows looked at",
            field="spec.training.maxLength" if not measured.troubles else "spec.data.columns",
        )
    longer = len(too_long) / len(lengths) if len(lengths) else 0.0
    tokens = int(taken.mean() * train_rows) if len(lengths) else 0
    findings = []
    if troubles:
        n = min(troubles)
        share = len(troubles) / len(rows)
        message = f"In {share:.1%} of the rows looked at nothing is left to learn: {troubles[n]}"
        findings.append(_finding("NothingToLearn", rows[n], share * train_rows, message))
    if longer > 0:
        message = f"About {longer:.1%} of the rows are longer than maxLength {max_length} and are "
        seen = f"; the longest seen has {measured.longest} tokens."
        if task.info.windows:
            kind, message = "Windows", f"{message}taken in several windows, so that nothing is cut{seen}"
        else:
            kind, message = "Truncated", f"{message}cut{seen} Raise spec.training.maxLength if what is cut matters."
        findings.append(_finding(kind, rows[too_long[0]], longer * train_rows, message))
    quantiles = Lengths(
        p50=measured.quantile(0.5),
        p95=measured.quantile(0.95),
        max=measured.longest,
        truncated_fraction=0.0 if task.info.windows else round(longer, 6),
    )
    return quantiles, tokens, findings


def _omissions(
    measured: Measured, split: str, total: int, task: Task, columns: Mapping[str, str], tokenizer: Processor
) -> list[Finding]:
    """What encoding leaves out of these rows, where the task can tell."""
    rows = measured.rows
    learnable = {n: row.values for n, row in enumerate(rows) if n not in measured.troubles}
    found = task.omissions(learnable, measured.hidden, columns, tokenizer)
    return [
        _finding(
            omission.kind,
            rows[omission.rows[0]],
            len(omission.rows) / len(rows) * total,
            omission.message.format(share=len(omission.rows) / len(rows), split=split.removeprefix(SET)),
        )
        for omission in found
    ]


def _finding(kind: str, row: SampledRow, count: float, message: str) -> Finding:
    return Finding(
        kind=kind, count=max(1, round(count)), file=row.file[-256:], line=row.line, message=clip(message, 384)
    )
