"""The classes: which there are, in which order, and whether each can be learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from finetune_api.exits import JobError, Reason
from finetune_api.forms import one_form
from finetune_api.run import RunConfig
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.model.labels import in_their_order
from finetune_trainer.prepare.rows.evidence import Evidence
from finetune_trainer.prepare.rows.survey import SourceSurvey, no_classes
from finetune_trainer.tasks.base import Task, role_of

RARE_SHARE = 0.02
MANY = 1_000
"""So many classes are learned only where each has two rows in the mean."""
_NUMBER = re.compile("-?[0-9]{1,18}")


def given_labels(config: RunConfig) -> tuple[str, ...] | None:
    """spec.data.labels in the form in which classes are compared."""
    if config.data.labels is None:
        return None
    labels = tuple(map(one_form, config.data.labels))
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise JobError(
            Reason.INVALID_CONFIG,
            f"label {twice!r} is named twice, in two Unicode forms that look alike",
            field="spec.data.labels",
            hint="Name each label once.",
        )
    return labels


def check_labels(
    known: Sequence[str] | None, task: Task, columns: Mapping[str, str], evidence: Evidence, of_head: Sequence[str]
) -> tuple[str, ...]:
    """The model's outputs in their order: the known classes', else those of the training rows, of which those that the
    model's head knows come first.

    Raises JobError where rows have exactly one class, and all have the same; where none has a class; and where so many
    are so rare that the column holds something else.
    """
    train = evidence.train
    seen = sort_labels(list(train.label_counts))
    try:
        outputs = task.naming.outputs(known or seen, seen, columns)
    except JobError:
        if not evidence.bad_rows.too_many:
            raise
        outputs = seen  # the bad rows are the matter, and are told of when all are counted
    labels = outputs if known else in_their_order(outputs, of_head)
    if not train.label_counts and not evidence.bad_rows.too_many:
        raise _without_classes(task, columns, train)
    if not known and (count := len(train.label_counts)) > MANY and 2 * count > train.usable:
        raise no_classes(task, columns, f"{count:,} values in {train.usable:,} rows of {train.source.uri}")
    if task.info.exclusive and len(train.label_counts) == 1 and not evidence.bad_rows.too_many:
        (only,) = train.label_counts
        (column,) = task.class_columns(columns)
        role = next(role for role, name in columns.items() if name == column)
        raise JobError(
            Reason.INVALID_DATA,
            f"{train.source.uri}: all {train.usable} usable rows have the class {only!r} (column "
            f"{column!r}): there is nothing to tell apart",
            field=f"spec.data.columns.{role}",
            hint=(
                f"Check that spec.data.columns.{role} is the right column, and that "
                "spec.data.train.uri matches objects of all classes."
            ),
        )
    return tuple(labels)


def _without_classes(task: Task, columns: Mapping[str, str], train: SourceSurvey) -> JobError:
    named = task.class_columns(columns)
    role = next(role_of(entry) for entry, name in columns.items() if name in named)
    shown = ", ".join(map(repr, named[:5])) + (", …" if len(named) > 5 else "")
    return JobError(
        Reason.INVALID_DATA,
        f"{train.source.uri}: none of the {train.usable} usable rows has a class ({shown}): there is nothing to learn",
        field=f"spec.data.columns.{role}",
        hint=f"Check that spec.data.columns.{role} is right, and that spec.data.train.uri matches the right objects.",
    )


def sort_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Classes in order: by value if all are plain whole numbers, else as text."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def balance(counts: Mapping[str, int], labels: Sequence[str], total: int) -> list[Finding]:
    """Classes without a row, and rare ones; `total`: training rows."""
    found = []
    if unseen := [name for name in labels if not counts.get(name)]:
        found.append(
            Finding(
                kind="UnseenLabel",
                count=len(unseen),
                message=clip(
                    f"No row has the class {', '.join(map(repr, unseen[:5]))}: it cannot be learned. "
                    "Add rows, or remove it from spec.data.labels.",
                    384,
                ),
            )
        )
    shapes: dict[str, str] = {}
    for name in labels:
        first = shapes.setdefault(" ".join(name.casefold().split()), name)
        if first != name:
            message = (
                f"Classes {first!r} and {name!r} differ in case or white space only; if they are one, write them alike."
            )
            found.append(Finding(kind="SimilarLabels", count=counts.get(name, 0), message=message[:384]))
            break
    rare = min((name for name in labels if counts.get(name)), key=lambda name: counts[name], default=None)
    if rare is not None and len(labels) > 1 and counts[rare] < RARE_SHARE * total / max(1, len(labels) / 2):
        found.append(
            Finding(
                kind="Imbalance",
                count=counts[rare],
                message=clip(
                    f"Class {rare!r} has {counts[rare]} of {total} rows; look at its own F1 in the report, "
                    "not at accuracy.",
                    384,
                ),
            )
        )
    return found
