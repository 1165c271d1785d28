"""What has not been seen is looked up first, and nothing else is done: absence is not evidence."""

from __future__ import annotations

from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    draft.look_up.extend(draft.evidence.look_up)
    return bool(draft.look_up)
