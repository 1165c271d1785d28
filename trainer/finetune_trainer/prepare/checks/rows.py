"""The rows: enough of them can be used; and what their owner should know of single objects and rows."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.status import Finding
from finetune_trainer.prepare.checks.splits import empty_split
from finetune_trainer.prepare.rows.evidence import Evidence
from finetune_trainer.prepare.rows.survey import SourceSurvey


def check_any_usable(evidence: Evidence) -> None:
    """Raises JobError where no training row can be used."""
    if not evidence.train.usable:
        check_bad_rows(evidence)
        raise empty_split("train", True, evidence.train, evidence.fields["train"])


def check_bad_rows(evidence: Evidence) -> None:
    """Raises JobError where more rows are bad than spec.data.maxBadRows allows."""
    if evidence.bad_rows.too_many:
        raise evidence.bad_rows.refusal()


def empty_objects(seen: Mapping[str, SourceSurvey]) -> list[Finding]:
    """Objects that hold no row: more likely a writer that failed than meant."""
    empty = [found.name(item.key) for found in seen.values() for item in found.source.objects if not item.rows]
    if not empty:
        return []
    message = f"{len(empty)} of the objects hold no rows; write them again, or remove them."
    return [Finding(kind="EmptyObject", count=len(empty), file=empty[0][-256:], message=message)]


def empty_texts(seen: Mapping[str, SourceSurvey]) -> list[Finding]:
    """Rows that may be learned from, and have nothing to say."""
    count = sum(s.empty_texts for s in seen.values())
    first = next((s.first_empty for s in seen.values() if s.first_empty), None)
    if first is None:
        return []
    return [
        Finding(
            kind="EmptyText",
            count=count,
            file=first[0][-256:],
            line=first[1],
            message=f"{count} rows have an empty text.",
        )
    ]


def unicode_forms(seen: Mapping[str, SourceSurvey]) -> list[Finding]:
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
