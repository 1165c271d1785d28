"""An estimated end holds only while steps are made."""

from __future__ import annotations

from finetune_api.status import Phase
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    progress = draft.status.progress
    if progress is not None and draft.status.phase not in (Phase.RUNNING, Phase.EVALUATING, Phase.SUCCEEDED):
        draft.update(progress=progress.model_copy(update={"eta_seconds": None}))
    return False
