"""The parts of the training source's rows, from what the survey saw of them: held out first, then kept few, then dealt.

Everything goes by content: equal rows take the same part, so that no model is judged on what it was taught, and neither
the rows' order nor the way they lie in objects changes a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.prepare.parts.contents import Contents, contents_of
from finetune_trainer.prepare.parts.draw import few, held_out, kept_for
from finetune_trainer.prepare.parts.folds import GROUP_BY, TooFew, folds_of
from finetune_trainer.prepare.parts.strata import Strata, strata_of
from finetune_trainer.prepare.rows.fingerprint import UNUSABLE
from finetune_trainer.prepare.rows.survey import SourceSurvey
from finetune_trainer.stream.order import key_of
from finetune_trainer.stream.parts import FIRST_FOLD, TEST, TRAIN, UNUSED, VALIDATION, are_drawn
from finetune_trainer.tasks.base import Task

_NAMED = 5
"""Classes that a finding names."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """parts: uint8 (rows,) of all rows of the source, bad ones included. alone: classes that nothing is held out of."""

    parts: np.ndarray
    findings: tuple[Finding, ...]
    alone: frozenset[str] = frozenset()

    @property
    def fold_rows(self) -> tuple[int, ...]:
        """How many rows each fold has; empty without folds."""
        return tuple(np.bincount(self.parts)[FIRST_FOLD:].tolist())


def assign(config: RunConfig, task: Task, seen: SourceSurvey) -> Assigned | None:
    """None where every split has all rows of a source. `seen`: of the training source. Raises JobError."""
    if not are_drawn(config):
        return None
    data, folds = config.data, config.evaluation.folds
    wanted = ((VALIDATION, data.validation), (TEST, data.test))
    fractions = {part: source.fraction for part, source in wanted if source and source.fraction is not None}
    strata = strata_of(task, seen, min([*fractions.values(), *([1 / folds.count] if folds else [])], default=1.0))
    prints = np.frombuffer(seen.prints, dtype=np.uint64)
    parts = np.where(prints == UNUSABLE, np.uint8(UNUSED), np.uint8(TRAIN))
    findings, alone = list[Finding](), frozenset[str]()
    if fractions:
        contents = contents_of(prints, strata.numbers, np.flatnonzero(parts), key_of("held out"))
        _hold_out(parts, contents, strata, fractions)
        alone = _alone(contents, strata)
        findings += _told_alone(alone, seen, task.info.unit)
    if data.train.per_class is not None:
        findings += _keep_few(parts, prints, strata, data.train.per_class, data.train.seed or 0)
    if folds is not None:
        findings += _deal(parts, prints, strata, seen, folds.count, folds.group_by, task.info.unit)
    return Assigned(parts, tuple(findings), alone)


def _hold_out(parts: np.ndarray, contents: Contents, strata: Strata, fractions: dict[int, float]) -> None:
    free = ~kept_for(strata.numbers, contents, strata.classes)
    for part, fraction in fractions.items():
        taken = held_out(contents, fraction, free, key_of("seats", part), pooled=strata.pooled)
        parts[contents.rows[contents.spread(taken)]] = part
        free &= ~taken


def _alone(contents: Contents, strata: Strata) -> frozenset[str]:
    """Classes of one content."""
    return frozenset(name for name, n in _contents_of_classes(contents, strata).items() if n == 1)


def _contents_of_classes(contents: Contents, strata: Strata) -> dict[str, int]:
    """class -> contents that rows of it have; of classes that rows have."""
    pairs = np.unique(contents.of_row * len(strata.classes) + strata.numbers[contents.rows])
    of_sets = np.bincount(pairs % len(strata.classes), minlength=len(strata.classes))
    counts = [0] * len(strata.names)
    for classes, n in zip(strata.classes, of_sets.tolist(), strict=True):
        for place in classes if strata.names else ():
            counts[place] += n
    return {name: n for name, n in zip(strata.names, counts, strict=True) if n}


def _told_alone(alone: frozenset[str], seen: SourceSurvey, unit: str) -> list[Finding]:
    if not alone:
        return []
    one = len(alone) == 1
    message = (
        f"{_classes(sorted(alone))} {'has' if one else 'have'} one distinct {unit}{'' if one else ' each'}, which stays"
        " among the training rows: how well it is learned is not judged. Add rows."
    )
    count = sum(seen.label_counts[name] for name in alone)
    return [Finding(kind="SingleRows", count=count, message=clip(message, 384))]


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(clip(repr(name), 48) for name in names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return f"{'Class' if len(names) == 1 else 'Classes'} {shown}"


def _keep_few(parts: np.ndarray, prints: np.ndarray, strata: Strata, count: int, seed: int) -> list[Finding]:
    rows = np.flatnonzero(parts == TRAIN)
    contents = contents_of(prints, strata.numbers, rows, key_of("per class", seed))
    chosen = few(contents, strata.numbers, count)
    parts[rows] = UNUSED
    parts[chosen] = TRAIN
    found = []
    kept = np.bincount(strata.numbers[chosen], minlength=len(strata.classes))
    counts = {strata.names[classes[0]]: n for classes, n in zip(strata.classes, kept.tolist(), strict=True) if n}
    if short := {name: n for name, n in counts.items() if n < count}:
        of_each = [f"{clip(repr(name), 48)} ({n})" for name, n in sorted(short.items())]
        shown = ", ".join(of_each[:_NAMED]) + (", …" if len(short) > _NAMED else "")
        message = f"data.train.perClass asks for {count} rows of each class, and of these there are fewer: {shown}."
        found.append(Finding(kind="FewRows", count=sum(short.values()), message=clip(message, 384)))
    if unused := len(rows) - len(chosen):
        drawn = f"{len(chosen):,} of the {len(rows):,} training rows"
        message = f"{unused:,} rows are left unused: data.train.perClass draws {drawn}."
        found.append(Finding(kind="UnusedRows", count=unused, message=message))
    return found


def _deal(
    parts: np.ndarray, prints: np.ndarray, strata: Strata, seen: SourceSurvey, count: int, column: str | None, unit: str
) -> list[Finding]:
    rows = np.flatnonzero(parts == TRAIN)
    values = None if column is None else np.frombuffer(seen.groups, dtype=np.uint64)
    try:
        folds = folds_of(prints, strata.numbers, rows, count, key_of("folds"), values)
    except TooFew as error:
        raise _too_few(len(rows), error.groups, count, column, unit) from None
    parts[rows] = FIRST_FOLD + folds
    found = []
    alone = 0 if values is None else int((values[rows] == UNUSABLE).sum())
    if alone and seen.first_ungrouped is not None:
        file, line = seen.first_ungrouped
        message = (
            f"{alone:,} rows have no value in column {clip(repr(column), 64)}: each stands for a group of its"
            " own. If they belong together, write the same value into them."
        )
        found.append(Finding(kind="UngroupedRows", count=alone, file=file[-256:], line=line or None, message=message))
    sizes = np.bincount(folds, minlength=count)
    if sizes.max() > 2 * sizes.min():
        message = (
            f"The smallest fold has {sizes.min():,} rows and the largest {sizes.max():,}, since what belongs together"
            f" lies in one fold{f' (rows of one {unit}, too)' if values is not None else ''}: scores of folds weigh"
            " alike in their mean."
        )
        found.append(Finding(kind="UnevenFolds", count=int(sizes.max()), message=clip(message, 384)))
    if strata.names and (missed := _missed(strata, rows, folds, count)):
        message = (
            f"{_classes(missed)} {'is' if len(missed) == 1 else 'are'} not in every fold: "
            "where a class is missing it is not judged. Add rows, or ask for fewer folds."
        )
        concerned = sum(seen.label_counts[name] for name in missed)
        found.append(Finding(kind="UnjudgedLabel", count=concerned, message=clip(message, 384)))
    return found


def _missed(strata: Strata, rows: np.ndarray, folds: np.ndarray, count: int) -> list[str]:
    """Classes of these rows that some fold has no row of."""
    there = np.zeros((len(strata.names), count), dtype=bool)
    for pair in np.unique(strata.numbers[rows] * count + folds).tolist():
        there[list(strata.classes[pair // count]), pair % count] = True
    return [name for name, has in zip(strata.names, there, strict=True) if has.any() and not has.all()]


def _too_few(rows: int, groups: int, count: int, column: str | None, unit: str) -> JobError:
    if column is None:
        return JobError(
            Reason.INVALID_DATA,
            f"{rows:,} training rows with {groups:,} different {unit}s cannot be dealt into {count} folds",
            field="spec.evaluation.folds.count",
            hint=f"Ask for {groups} folds at most, or provide more rows." if groups > 1 else "Provide more rows.",
        )
    return JobError(
        Reason.INVALID_DATA,
        f"{rows:,} training rows make {groups:,} group{'s' * (groups != 1)} by column {column!r} (rows of one {unit}"
        f" are in one group, too), and {count} folds are asked for",
        field=GROUP_BY,
        hint=(
            (f"Ask for {groups} folds at most, or group" if groups > 1 else "Group")
            + " by a column with more values, or remove groupBy."
        ),
    )
