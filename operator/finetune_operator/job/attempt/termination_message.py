"""The launcher's last word, read from a pod's termination message: it carries the end result when no report got
through."""

from __future__ import annotations

import json
from collections.abc import Iterable

from finetune_api.base import FieldError, parse_stored
from finetune_api.report import Outcome
from finetune_operator.plan.views.pod import PodView


def outcome(pod: PodView, job_uid: str) -> Outcome | None:
    """What the pod's launcher said; None if it said nothing, or nothing that is about this job and attempt."""
    text = pod.container.message if pod.container else ""
    if not text.startswith("{"):
        return None
    try:
        value, _ = parse_stored(Outcome, json.loads(text))
    except (ValueError, FieldError, RecursionError):
        return None
    return value if value.job_id == job_uid and value.attempt == pod.attempt else None


def last_words(pods: Iterable[PodView], job_uid: str) -> Outcome | None:
    """Rank 0's outcome, else that of any pod; `pods` stand in the order of their index."""
    return next((said for said in (outcome(p, job_uid) for p in pods) if said), None)
