"""The objects of this plan could not be made the last time: why is said. The reconciler tries again in a while."""

from __future__ import annotations

from finetune_api.exits import EXITS, Reason
from finetune_api.status import ConditionType, Phase
from finetune_operator.job.attempt import waiting
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    conflicts, refusals = draft.observed.conflicts, draft.observed.refusals
    if not draft.create or not (conflicts or refusals):
        return False
    phase = Phase.PENDING if not draft.holds(ConditionType.VALIDATED) else draft.status.phase or Phase.PENDING
    if conflicts:
        draft.say(phase, Reason.NAME_CONFLICT, f"{'; '.join(conflicts)}. {EXITS[Reason.NAME_CONFLICT].hint}")
    else:
        why = waiting.refused(refusals[0].message)
        draft.say(phase, why.reason, why.message)
    draft.notes = [n for n in draft.notes if n.reason != "Restarting"]
    return False
