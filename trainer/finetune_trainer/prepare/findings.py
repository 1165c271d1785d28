"""Which findings status shows: as many as it holds, the gravest first."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.status import FINDINGS, Finding

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
    "UngroupedRows",
    "FewRows",
    "ManyRows",
    "UnusedRows",
    "SingleRows",
    "HiddenTurns",
    "HiddenTools",
    "GuessedStart",
    "LongAnswers",
    "UnseenWords",
    "UnusedColumns",
    "AmbiguousColumns",
    "UnusedWeights",
    "UntrainedExperts",
    "WithoutEffect",
    "Truncated",
    "WidenedSpans",
    "TrainedHead",
    "UnseenLabel",
    "UnjudgedLabel",
    "UnevenFolds",
    "Imbalance",
    "Duplicates",
    "SimilarLabels",
    "UnicodeForm",
    "EmptyText",
    "EmptyObject",
    "Copied",
    "Windows",
)


def most_important(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """As many as status holds, the gravest first."""
    rank = {kind: n for n, kind in enumerate(_SEVERITY)}
    return tuple(sorted(found, key=lambda finding: rank.get(finding.kind, -1))[:FINDINGS])
