"""A newer version wrote fields of the spec that this one does not know: the condition FieldsIgnored lists them."""

from __future__ import annotations

from finetune_api.status import ConditionType
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    ignored = draft.observed.job.ignored_fields
    if not ignored:
        draft.resolve(ConditionType.FIELDS_IGNORED, "AllKnown")
        return False
    words = f"a newer version wrote fields that this operator does not know: {', '.join(ignored)}"
    draft.condition(ConditionType.FIELDS_IGNORED, True, "UnknownFields", words)
    return False
