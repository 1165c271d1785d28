"""A newer version wrote parts of the status that this one does not know: what will be left out is said once."""

from __future__ import annotations

from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    unread = draft.observed.job.unread_status
    if unread:
        words = (
            "a newer version wrote parts of the status that this operator does not know, and leaves out:"
            f" {', '.join(unread)}"
        )
        draft.note("Warning", "StatusPartlyRead", words)
    return False
