"""The API server finds an object of ours invalid: it would say so again, so the job fails."""

from __future__ import annotations

from finetune_api.exits import EXITS, Reason
from finetune_api.status import Failure
from finetune_api.text import clip
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    invalid = next((r for r in draft.observed.refusals if r.code == 422), None)
    if invalid is None:
        return False
    message = f"the API server refuses the {invalid.kind} made from the spec: {invalid.message}"
    draft.fail(
        Failure(reason=Reason.INVALID_CONFIG, message=clip(message, 1024), hint=EXITS[Reason.INVALID_CONFIG].hint)
    )
    return True
