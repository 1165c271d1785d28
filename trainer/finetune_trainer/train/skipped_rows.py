"""Rows that nothing can be learned from: counted, said as findings, and an error where nothing else is left (I8).

The prepare step looks at a sample; here every row is met. In training such a row weighs nothing; held-out ones cannot
be
judged. All ranks know the same counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_api.exits import JobError, Reason
from finetune_api.status import FINDINGS, Finding

if TYPE_CHECKING:
    from finetune_trainer.train.session import Session

ADVICE = "raise spec.training.maxLength, or shorten what comes before"


def messages(skipped: dict[str, int], max_length: int) -> dict[str, str]:
    """What people should know, by split."""
    where = f"nothing left to learn within maxLength {max_length}"
    return {
        split: (
            f"{count} training rows had {where} and weighed nothing, over all epochs: {ADVICE}"
            if split == "train"
            else f"{count} {split} rows had {where} and were left out of the scores: {ADVICE}"
        )
        for split, count in skipped.items()
    }


def report(s: Session) -> None:
    """Report the counts so far beside what the prepare step found."""
    if s.state.skipped_rows:
        said = messages(s.state.skipped_rows, s.max_length)
        own = [Finding(kind="NothingToLearn", count=s.state.skipped_rows[split], message=said[split]) for split in said]
        findings = (*own, *s.profile.data.findings)[:FINDINGS]
        s.progress.report(data=s.profile.data.model_copy(update={"findings": findings}))


def trained(s: Session, learned: int, empty: int, epoch: int) -> None:
    """Count a step, which began in this epoch. Raises NothingToLearn at the end of one that taught nothing."""
    state = s.state
    state.learned += learned
    if empty:
        state.skipped_rows["train"] = state.skipped_rows.get("train", 0) + empty
    if state.cursor.epoch > epoch:
        report(s)
        if state.learned == 0:
            raise JobError(
                Reason.NOTHING_TO_LEARN,
                f"none of the {s.rows_in('train')} training rows has anything left to learn within maxLength"
                f" {s.max_length}",
                field="spec.training.maxLength",
            )
        state.learned = 0


def judged(s: Session, split: str, empty: int) -> None:
    """Count the rows of a held-out split that could not be judged. Raises NothingToLearn where it has no others."""
    if empty == s.rows_in(split):
        raise JobError(
            Reason.NOTHING_TO_LEARN,
            f"none of the {empty} {split} rows can be judged: nothing of them is left within maxLength {s.max_length}",
            field="spec.training.maxLength",
        )
    if empty and s.state.skipped_rows.get(split) != empty:
        s.state.skipped_rows[split] = empty
        report(s)
