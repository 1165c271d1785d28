"""An older job writes where this one would: the younger fails before anything of it is made."""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import ConditionType, Failure
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import Observed, Rival


def enforce(draft: Draft) -> bool:
    if draft.evidence.begun or draft.holds(ConditionType.VALIDATED):
        return False
    rival = _elder(draft.observed)
    if rival is None:
        return False
    draft.fail(_failure(draft.spec.output.uri, rival))
    return True


def _elder(observed: Observed) -> Rival | None:
    """The oldest other job that is active and gets in the way of this one's output, if it is older than this one."""
    job = observed.job
    older = [r for r in observed.rivals if r.active and (r.created, r.uid) < (job.created, job.uid)]
    return min(older, key=lambda r: (r.created, r.uid), default=None)


def _failure(uri: str, rival: Rival) -> Failure:
    whose = f"the older FineTuneJob {rival.name}"
    if rival.uri in ("", uri.rstrip("/")):
        message = f"spec.output.uri {uri} is in use by {whose}"
    elif f"{uri}/".startswith(f"{rival.uri}/"):
        message = f"spec.output.uri {uri} lies within {rival.uri}, which is in use by {whose}"
    else:
        message = f"spec.output.uri {uri} holds {rival.uri}, which is in use by {whose}"
    hint = "Give each job its own spec.output.uri, none within another's, or delete the other job first."
    return Failure(reason=Reason.OUTPUT_IN_USE, message=message, hint=hint, field="spec.output.uri")
