"""Another's object has a name that a child of this job needs: the condition NameConflict says which."""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import ConditionType
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    conflicts = draft.observed.conflicts
    if not conflicts:
        draft.resolve(ConditionType.NAME_CONFLICT, "Resolved")
        return False
    message = "; ".join(conflicts)
    if draft.condition(ConditionType.NAME_CONFLICT, True, Reason.NAME_CONFLICT, message):
        draft.note("Warning", "NameConflict", message)
    return False
