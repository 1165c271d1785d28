"""The answers that are most wrong: kept while the final evaluation goes on, then shown with their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune_api.tuning import DEFAULT_WRONG_ANSWERS
from finetune_trainer.evaluate.worst import Kept, Worst
from finetune_trainer.output import WrongAnswer
from finetune_trainer.stream.files import PLACE
from finetune_trainer.tasks.base import Decision, Sampling
from finetune_trainer.train.data import TrainingData
from finetune_trainer.train.session import Session


def keeper(s: Session) -> Worst | None:
    """What keeps the worst answers of an evaluation; None where none are wanted, or the task shows none."""
    given, mistakes = s.config.evaluation.wrong_answers, s.data.task.mistakes
    most = DEFAULT_WRONG_ANSWERS if given is None else given
    return Worst(mistakes.kinds, most) if mistakes is not None and most else None


def shown(s: Session, split: str, kept: Sequence[Kept], decision: Decision) -> tuple[WrongAnswer, ...]:
    """With the rows and their places; only rows that were kept are read again. Rank 0."""
    data, mistakes = s.data, s.data.task.mistakes
    if not kept or mistakes is None:
        return ()
    numbers = [each.row for each in kept]
    given = Sampling(data.facts, data.tokenizer, data.max_length, decision, (), s.stop)
    was_training = s.model.training
    s.model.eval()
    try:
        with data.stream(split) as stream, torch.inference_mode(), s.ranks.autocast():
            found, places = stream.rows_at(numbers), stream.places(numbers)
            rows = [data.opened(data.named(found[number])) for number in numbers]
            made = mistakes.show(s.model, rows, kept, given)
    finally:
        s.model.train(was_training)
    files = [_own_file(found[number], data) for number in numbers]
    return tuple(
        WrongAnswer(each.kind, file or place.file, place.row, place.line, mistake)
        for each, place, file, mistake in zip(kept, places, files, made, strict=True)
    )


def _own_file(row: Mapping[str, Any], data: TrainingData) -> str | None:
    """The URI of the file that a row stands for, where it stands for one that lies elsewhere."""
    values = (row.get(data.profile.columns[role]) for role in data.task.file_roles)
    return next((str(value[PLACE]) for value in values if isinstance(value, Mapping) and PLACE in value), None)
