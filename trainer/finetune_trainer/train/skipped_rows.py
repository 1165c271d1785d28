"""Rows that nothing can be learned from: counted, reported as findings, and an error where nothing else is left (I8).

The prepare step looks at a sample; here every row is met. In training such a row weighs nothing; held-out ones cannot
be judged. All ranks know the same counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.exits import JobError, Reason
from finetune_api.status import FINDINGS, DataProfile, Finding
from finetune_trainer.stream.splits import FOLD, rows_called
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.state import TrainState

ADVICE = "raise spec.training.maxLength, or shorten what comes before"


def messages(counts: Mapping[str, int], max_length: int) -> list[tuple[int, str]]:
    """What people should know, with the count of each; the folds are told together."""
    where = f"nothing left to learn within maxLength {max_length}"
    folds = sum(count for split, count in counts.items() if split.startswith(FOLD))
    named = {rows_called(split): count for split, count in counts.items() if not split.startswith(FOLD)}
    return [
        (
            count,
            f"{count} training rows had {where} and weighed nothing, over all epochs: {ADVICE}"
            if name == rows_called("train")
            else f"{count} {name} had {where} and were left out of the scores: {ADVICE}",
        )
        for name, count in (named | ({"rows of folds": folds} if folds else {})).items()
    ]


@dataclass(frozen=True)
class SkippedRows:
    """Counts them in the train state, and reports the counts beside what the prepare step found in the data."""

    state: TrainState
    data: DataProfile
    max_length: int
    progress: TrainingProgress

    def report(self) -> None:
        """Report the counts so far."""
        counts = self.state.skipped_rows
        if counts:
            told = messages(counts, self.max_length)
            own = [Finding(kind="NothingToLearn", count=count, message=message) for count, message in told]
            findings = (*own, *self.data.findings)[:FINDINGS]
            self.progress.report(data=self.data.model_copy(update={"findings": findings}))

    def notes(self) -> list[str]:
        """As sentences, for the report."""
        return [f"{message}." for _, message in messages(self.state.skipped_rows, self.max_length)]

    def add_step(self, learned: float, empty: int, *, epoch_before: int) -> None:
        """Count a step that was made. Raises NothingToLearn at the end of an epoch that taught nothing."""
        state = self.state
        state.learned += learned
        if empty:
            state.skipped_rows["train"] = state.skipped_rows.get("train", 0) + empty
        if state.cursor.epoch > epoch_before:
            self.report()
            if state.learned == 0:
                raise JobError(
                    Reason.NOTHING_TO_LEARN,
                    f"none of the {self.data.train_rows} training rows has anything left to learn within maxLength"
                    f" {self.max_length}",
                    field="spec.training.maxLength",
                )
            state.learned = 0

    def add_evaluation(self, split: str, rows: int, empty: int) -> None:
        """Count those of a held-out split. Raises NothingToLearn where none of its rows can be judged."""
        if empty == rows:
            raise JobError(
                Reason.NOTHING_TO_LEARN,
                f"none of the {empty} {rows_called(split)} can be judged: nothing of them is left within maxLength"
                f" {self.max_length}",
                field="spec.training.maxLength",
            )
        if empty and self.state.skipped_rows.get(split) != empty:
            self.state.skipped_rows[split] = empty
            self.report()
