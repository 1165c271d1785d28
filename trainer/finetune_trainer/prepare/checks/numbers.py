"""The numbers to be learned: not all the same, and how far they spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_trainer.prepare.rows.survey import SourceSurvey
from finetune_trainer.stream.profile import Spread
from finetune_trainer.tasks.base import Task


def check_numbers(task: Task, columns: Mapping[str, str], train: SourceSurvey) -> Spread | None:
    """None where the task learns no numbers. Raises JobError where there is nothing to tell apart."""
    if task.number is None:
        return None
    values = np.frombuffer(train.numbers, dtype=np.float64)
    values = values[~np.isnan(values)]
    low, high = float(values.min()), float(values.max())
    if low == high:
        (column,) = task.learned_columns(columns)
        role = next(role for role, name in columns.items() if name == column)
        raise JobError(
            Reason.INVALID_DATA,
            f"{train.source.uri}: all {train.usable} usable rows have the number {low:g} (column {column!r}): there is"
            " nothing to tell apart",
            field=f"spec.data.columns.{role}",
            hint=f"Check that spec.data.columns.{role} is the right column.",
        )
    return Spread(low, high, float(values.mean()), float(values.std()))
