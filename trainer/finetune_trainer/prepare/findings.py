"""What the rows' owner should know although the job goes on: overlap of splits, contradictions, duplicates, rare
classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune_api.status import FINDINGS, Finding
from finetune_api.text import clip
from finetune_trainer.prepare.rows.survey import BAD, Surveyed
from finetune_trainer.storage import Location
from finetune_trainer.stream.blocks import CACHE
from finetune_trainer.stream.manifest import Block
from finetune_trainer.stream.splits import Interval, usable

RARE_SHARE = 0.02
ANNOUNCED_BYTES = 64 << 20
_SEVERITY = (
    "InvalidJson",
    "InvalidCsv",
    "InvalidEncoding",
    "MissingColumn",
    "InvalidRow",
    "UnknownLabel",
    "NoConditionalWrites",
    "TableFiles",
    "Overlap",
    "NothingToLearn",
    "Contradiction",
    "HiddenTurns",
    "HiddenTools",
    "UnusedColumns",
    "AmbiguousColumns",
    "UnusedWeights",
    "UntrainedExperts",
    "Truncated",
    "TrainedHead",
    "UnseenLabel",
    "UnjudgedLabel",
    "Imbalance",
    "Duplicates",
    "SimilarLabels",
    "UnicodeForm",
    "EmptyText",
    "EmptyObject",
    "Copied",
)


def most_important(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """As many as status holds, the gravest first."""
    rank = {kind: n for n, kind in enumerate(_SEVERITY)}
    return tuple(sorted(found, key=lambda finding: rank.get(finding.kind, -1))[:FINDINGS])


def split_numbers(seen: Surveyed, bad: Mapping[int, Sequence[int]], interval: Interval) -> np.ndarray:
    """Positions in the source's arrays (`prints`, `classes`) of the rows that a split has."""
    parts: list[np.ndarray] = []
    before = 0
    for number, item in enumerate(seen.source.objects):
        parts.extend(before + usable(number, block, bad.get(number, ()), interval) for block in item.blocks)
        before += item.rows
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def place(seen: Surveyed, position: int) -> tuple[str, int | None]:
    """Object and line of a position; no line where it cannot be told without reading again."""
    for item, first in zip(seen.source.objects, seen.first_lines, strict=True):
        if position < item.rows:
            return item.key[-256:], None if first is None else first + position
        position -= item.rows
    raise AssertionError("no such row")


def unconditional(output: str) -> Finding:
    """The storage cannot decide between two writers: what that means, and for whom."""
    return Finding(
        kind="NoConditionalWrites",
        message=(
            f"The storage of {clip(output, 128)} ignores If-None-Match: two writers at the same moment (an old worker"
            " pod that lives on, or another job with this output.uri) are told apart by a check only. Checkpoints are"
            " safe from all others."
        ),
    )


def without_rows(seen: Mapping[str, Surveyed]) -> list[Finding]:
    """Objects that hold no row: more likely a writer that failed than meant."""
    empty = [item.key for found in seen.values() for item in found.source.objects if not item.rows]
    if not empty:
        return []
    message = f"{len(empty)} of the objects hold no rows; write them again, or remove them."
    return [Finding(kind="EmptyObject", count=len(empty), file=empty[0][-256:], message=message)]


def other_forms(seen: Mapping[str, Surveyed]) -> list[Finding]:
    """Names that look alike and are written otherwise: taken for one, which the owner may not have meant."""
    first = next((found.first_other for found in seen.values() if found.first_other), None)
    if first is None:
        return []
    message = (
        "Rows name their class or a column in a decomposed Unicode form (as é in two characters, NFD); it is taken for"
        " the same name as in NFC, which the model's labels are written in."
    )
    count = sum(found.other_forms for found in seen.values())
    return [Finding(kind="UnicodeForm", count=count, file=first[0][-256:], line=first[1], message=message)]


def copied(held_out: Mapping[str, Sequence[Block]], out: Location) -> list[Finding]:
    """Copies of held-out rows that take room worth a word."""
    size = sum(block.end for blocks in held_out.values() for block in blocks)
    if size < ANNOUNCED_BYTES:
        return []
    where = clip(out.uri(CACHE), 128)
    message = (
        f"The held-out rows were copied to {where} ({size / 2**20:.0f} MiB): evaluations read no others. Deleted when"
        " the job succeeds."
    )
    return [Finding(kind="Copied", count=sum(b.rows for blocks in held_out.values() for b in blocks), message=message)]


def duplicates(seen: Surveyed, numbers: np.ndarray) -> list[Finding]:
    """Equal texts among the training rows, and those of them whose classes differ."""
    prints = np.frombuffer(seen.prints, dtype=np.uint64)[numbers]
    classes = np.frombuffer(seen.classes, dtype=np.uint16)[numbers]
    order = np.argsort(prints, kind="stable")
    same = (prints[order][1:] == prints[order][:-1]) & (prints[order][1:] != BAD)
    found = []
    if contradictions := int((same & (classes[order][1:] != classes[order][:-1])).sum()):
        first = int(np.flatnonzero(same & (classes[order][1:] != classes[order][:-1]))[0])
        file, line = place(seen, int(numbers[order[first + 1]]))
        found.append(
            Finding(
                kind="Contradiction",
                count=contradictions,
                file=file,
                line=line,
                message="The same text stands in several rows with different classes; correct or remove them.",
            )
        )
    if same.any():
        file, line = place(seen, int(numbers[order[int(np.flatnonzero(same)[0]) + 1]]))
        found.append(
            Finding(
                kind="Duplicates",
                count=int(same.sum()),
                file=file,
                line=line,
                message=f"{same.sum()} training rows repeat the text of another; they weigh more than the rest.",
            )
        )
    return found


def class_counts(seen: Surveyed, numbers: np.ndarray) -> dict[str, int]:
    """class -> rows, of the rows at these positions."""
    counts = np.bincount(np.frombuffer(seen.classes, dtype=np.uint16)[numbers], minlength=len(seen.label_counts) + 1)
    return {name: int(n) for name, n in zip(seen.label_counts, counts[1:], strict=True) if n}


def unjudged(train: Mapping[str, int], held: Mapping[str, int], split: str) -> list[Finding]:
    """Classes that are learned, and of which a held-out split has no row."""
    absent = [name for name in train if name not in held]
    if not absent:
        return []
    message = (
        f"No {split} row has the class {', '.join(map(repr, absent[:5]))}{', …' if len(absent) > 5 else ''}: how well"
        " it is learned is not judged there."
    )
    return [Finding(kind="UnjudgedLabel", count=sum(train[name] for name in absent), message=clip(message, 384))]


def overlap(train: np.ndarray, held: np.ndarray, split: str, where: Surveyed, numbers: np.ndarray) -> list[Finding]:
    """Texts of a held-out split that are among the training rows, too; arguments are fingerprints."""
    shared = np.isin(held, train)
    if not shared.any():
        return []
    file, line = place(where, int(numbers[int(np.flatnonzero(shared)[0])]))
    share = shared.mean()
    return [
        Finding(
            kind="Overlap",
            count=int(shared.sum()),
            file=file,
            line=line,
            message=(
                f"{shared.sum()} {split} rows ({share:.1%}) have a text that is in the training rows, too: "
                "scores will look better than they are. Remove duplicates before splitting."
            ),
        )
    ]


def balance(counts: Mapping[str, int], labels: Sequence[str]) -> list[Finding]:
    """Classes without a row, and rare ones."""
    found = []
    total = sum(counts.values())
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
