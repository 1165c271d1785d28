"""The Events that tell why pods are missing or stuck are asked for, and asked for again."""

from __future__ import annotations

from finetune_operator.job.attempt import waiting
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    read, again = waiting.to_read(draft.observed, draft.evidence.active.attempt)
    draft.read_events.extend(read)
    draft.wake_in(again)
    return False
