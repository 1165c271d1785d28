"""The rounds of a job: the model is tuned from its start in each, all alike but for the rows.

With evaluation.folds there is one for each fold, which learns from the training rows outside it and is judged on it
once, at its end. The last round, or the only one, learns from all training rows: it makes the result, and what chooses
by the validation rows (the best checkpoint, early stopping) belongs to it alone. Steps, epochs, the learning rate and
all noise count within a round, so that each comes out as it would in a job of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.resolve import round_steps, steps_per_epoch, warmup_steps
from finetune_api.run import RunConfig
from finetune_trainer.stream import Profile
from finetune_trainer.stream.splits import BUT_FOLD, FOLD


@dataclass(frozen=True, slots=True)
class Round:
    """`start`: steps that the job makes before it."""

    number: int
    split: str
    """The rows that it learns from."""
    judged: str | None
    """Those that it is judged on at its end; None: it is the last one."""
    start: int
    steps: int
    steps_per_epoch: int
    warmup: int
    name: str | None
    """Which of several it is, for people; None where there is one only."""

    @property
    def fold(self) -> int | None:
        """The number of its fold, from 1."""
        return None if self.judged is None else self.number + 1

    def step(self, of_job: int) -> int:
        """A step of the job, counted from the round's start."""
        return of_job - self.start

    def epoch(self, of_job: int) -> float:
        """Passes over its rows that are made after this step of the job."""
        return self.step(of_job) / self.steps_per_epoch


def split_rows(profile: Profile) -> dict[str, int]:
    """How many rows each split has."""
    data = profile.data
    found = {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
    for k, held in enumerate(profile.fold_rows, 1):
        found |= {f"{FOLD}{k}": held, f"{BUT_FOLD}{k}": data.train_rows - held}
    return found | dict(profile.set_rows)


def rounds_of(config: RunConfig, profile: Profile) -> tuple[Round, ...]:
    """Of a job whose prepare step is done, in their order."""
    training, batch = config.training, profile.resolved.global_batch_size or 1
    count, counts = len(profile.fold_rows), split_rows(profile)
    parts = [(f"{BUT_FOLD}{k}", f"{FOLD}{k}") for k in range(1, count + 1)]
    found: list[Round] = []
    start = 0
    for number, (split, judged) in enumerate([*parts, ("train", None)]):
        rows = counts[split]
        steps = round_steps(config, rows, batch)
        name = f"fold {number + 1} of {count}" if judged else "all rows" if count else None
        found.append(
            Round(
                number=number,
                split=split,
                judged=judged,
                start=start,
                steps=steps,
                steps_per_epoch=steps_per_epoch(rows, batch),
                warmup=warmup_steps(training, steps),
                name=name,
            )
        )
        start += steps
    return tuple(found)
