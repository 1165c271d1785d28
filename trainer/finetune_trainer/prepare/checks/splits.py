"""The splits: none is empty, and what a comparison of their texts shows: repeated rows, contradictions, overlap."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.sources import Data
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.prepare.parts.assign import Assigned
from finetune_trainer.prepare.rows.evidence import Evidence
from finetune_trainer.prepare.rows.fingerprint import UNUSABLE
from finetune_trainer.prepare.rows.survey import SourceSurvey
from finetune_trainer.stream.splits import HELD_OUT, SET, part_of, rows_called


@dataclass(frozen=True, slots=True)
class Splits:
    """Usable rows of each split, and training rows of each class."""

    rows: Mapping[str, int]
    classes: Mapping[str, int]
    findings: tuple[Finding, ...]
    mean: float | None = None
    """Of the training rows' numbers, where they have such."""


def check_splits(data: Data, evidence: Evidence, unit: str = "text", assigned: Assigned | None = None) -> Splits:
    """`unit`: what two rows may have in common; `assigned`: the parts of the training rows. Raises JobError for an
    empty split.
    """
    rows, classes = dict[str, int](), dict[str, int]()
    found: list[Finding] = []
    mean: float | None = None
    train = np.zeros(0, dtype=np.uint64)
    for split in ("train", *HELD_OUT, *(role for role in evidence.surveys if role.startswith(SET))):
        part = part_of(split, data)
        if part is None:
            continue
        seen = evidence.surveys[part.source]
        prints = np.frombuffer(seen.prints, dtype=np.uint64)
        if part.whole:
            numbers = np.flatnonzero(prints != UNUSABLE)
        else:
            assert assigned is not None
            numbers = np.flatnonzero(part.has(assigned.parts))
        rows[split] = len(numbers)
        if not len(numbers):
            raise empty_split(split, part.whole, seen, evidence.fields[part.source])
        prints = prints[numbers]
        if split == "train":
            train, classes = prints, _class_counts(seen, numbers)
            if len(seen.numbers):
                mean = float(np.frombuffer(seen.numbers, dtype=np.float64)[numbers].mean())
            found += _duplicates(seen, numbers, unit)
        else:
            told = frozenset[str]()
            if part.whole:
                found += _overlap(train, prints, split, seen, numbers, unit)
            elif assigned is not None:
                told = assigned.alone
            if split in HELD_OUT:  # a set may be of some classes only
                found += _unjudged(classes, _class_counts(seen, numbers), split, told)
    return Splits(rows, classes, tuple(found), mean)


def empty_split(split: str, whole: bool, seen: SourceSurvey, field: str) -> JobError:
    if whole:
        return JobError(
            Reason.INVALID_DATA,
            f"{seen.source.uri} has no usable rows",
            field=field,
            hint="Check that the objects are not empty, and that the URI matches the right ones.",
        )
    return JobError(
        Reason.INVALID_CONFIG,
        f"the {split} share of {seen.usable} rows holds no row",
        field=f"spec.data.{split}",
        hint="Provide more rows, raise the fraction, or name objects of their own. Equal rows stay together, and each"
        " class keeps one to learn from.",
    )


def _locate(seen: SourceSurvey, position: int) -> tuple[str, int | None]:
    """Object and line of a position; no line where only reading again would show it, or the object is the row."""
    if seen.files:
        return seen.name(seen.files[position].key)[-256:], None
    for item, first in zip(seen.source.objects, seen.first_lines, strict=True):
        if position < item.rows:
            return seen.name(item.key)[-256:], None if first is None else first + position
        position -= item.rows
    raise AssertionError("no such row")


def _class_counts(seen: SourceSurvey, numbers: np.ndarray) -> dict[str, int]:
    """class -> rows, of the rows at these positions."""
    sets = np.bincount(np.frombuffer(seen.classes, dtype=np.uint32)[numbers], minlength=len(seen.class_sets))
    counts = dict.fromkeys(seen.label_counts, 0)
    for names, n in zip(seen.class_sets, sets.tolist(), strict=True):
        for name in names:
            counts[name] += n
    return {name: n for name, n in counts.items() if n}


def _duplicates(seen: SourceSurvey, numbers: np.ndarray, unit: str) -> list[Finding]:
    """Equal texts among the training rows, and those of them whose classes differ."""
    prints = np.frombuffer(seen.prints, dtype=np.uint64)[numbers]
    classes = np.frombuffer(seen.classes, dtype=np.uint32)[numbers]
    order = np.argsort(prints, kind="stable")
    same = (prints[order][1:] == prints[order][:-1]) & (prints[order][1:] != UNUSABLE)
    found = []
    if contradictions := int((same & (classes[order][1:] != classes[order][:-1])).sum()):
        first = int(np.flatnonzero(same & (classes[order][1:] != classes[order][:-1]))[0])
        file, line = _locate(seen, int(numbers[order[first + 1]]))
        found.append(
            Finding(
                kind="Contradiction",
                count=contradictions,
                file=file,
                line=line,
                message=f"The same {unit} stands in several rows with different classes; correct or remove them.",
            )
        )
    if same.any():
        file, line = _locate(seen, int(numbers[order[int(np.flatnonzero(same)[0]) + 1]]))
        found.append(
            Finding(
                kind="Duplicates",
                count=int(same.sum()),
                file=file,
                line=line,
                message=f"{same.sum()} training rows repeat the {unit} of another; they weigh more than the rest.",
            )
        )
    return found


def _overlap(
    train: np.ndarray, held: np.ndarray, split: str, where: SourceSurvey, numbers: np.ndarray, unit: str
) -> list[Finding]:
    """Texts of a held-out split that are among the training rows, too; arguments are fingerprints."""
    shared = np.isin(held, train)
    article = "an" if unit[0] in "aeiou" else "a"
    if not shared.any():
        return []
    file, line = _locate(where, int(numbers[int(np.flatnonzero(shared)[0])]))
    share = shared.mean()
    return [
        Finding(
            kind="Overlap",
            count=int(shared.sum()),
            file=file,
            line=line,
            message=(
                f"{shared.sum()} {rows_called(split)} ({share:.1%}) have {article} {unit} that is in the training rows,"
                " too: scores will look better than they are. Remove duplicates before splitting."
            ),
        )
    ]


def _unjudged(train: Mapping[str, int], held: Mapping[str, int], split: str, told: Container[str]) -> list[Finding]:
    """Classes that are learned, and of which a held-out split has no row; but those that were told of before."""
    absent = [name for name in train if name not in held and name not in told]
    if not absent:
        return []
    message = (
        f"No {split} row has the class {', '.join(map(repr, absent[:5]))}{', …' if len(absent) > 5 else ''}: how well"
        " it is learned is not judged there."
    )
    return [Finding(kind="UnjudgedLabel", count=sum(train[name] for name in absent), message=clip(message, 384))]
