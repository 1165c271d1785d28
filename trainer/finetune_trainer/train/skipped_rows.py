"""Rows that nothing can be learned from: counted, told as findings, and an error where nothing else is left (I8).

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


def messages(dropped: dict[str, int], max_length: int) -> dict[str, str]:
    """What people should know, by split."""
    where = f"nothing left to learn within maxLength {max_length}"
    return {
        split: (
            f"{count} training rows had {where} and weighed nothing, over all epochs: {ADVICE}"
            if split == "train"
            else f"{count} {split} rows had {where} and were left out of the scores: {ADVICE}"
        )
        for split, count in dropped.items()
    }


def tell(s: Session) -> None:
    """Report the counts so far beside what the prepare step found."""
    if s.run.dropped:
        told = messages(s.run.dropped, s.max_length)
        own = [Finding(kind="NothingToLearn", count=s.run.dropped[split], message=told[split]) for split in told]
        findings = (*own, *s.profile.data.findings)[:FINDINGS]
        s.narrator.report(data=s.profile.data.model_copy(update={"findings": findings}))


def trained(s: Session, learned: int, empty: int, epoch: int) -> None:
    """Count a step, which began in this epoch. Raises NothingToLearn at the end of one that taught nothing."""
    run = s.run
    run.learned += learned
    if empty:
        run.dropped["train"] = run.dropped.get("train", 0) + empty
    if run.cursor.epoch > epoch:
        tell(s)
        if run.learned == 0:
            raise JobError(
                Reason.NOTHING_TO_LEARN,
                f"none of the {s.rows_in('train')} training rows has anything left to learn within maxLength"
                f" {s.max_length}",
                field="spec.training.maxLength",
            )
        run.learned = 0


def judged(s: Session, split: str, empty: int) -> None:
    """Count the rows of a held-out split that could not be judged. Raises NothingToLearn where it has no others."""
    if empty == s.rows_in(split):
        raise JobError(
            Reason.NOTHING_TO_LEARN,
            f"none of the {empty} {split} rows can be judged: nothing of them is left within maxLength {s.max_length}",
            field="spec.training.maxLength",
        )
    if empty and s.run.dropped.get(split) != empty:
        s.run.dropped[split] = empty
        tell(s)
