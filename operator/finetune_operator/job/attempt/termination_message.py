"""The launcher's last word, read from a pod's termination message: it carries the end result when no report got
through."""

from __future__ import annotations

import json

from finetune_api.base import FieldError, parse_stored
from finetune_api.report import Outcome
from finetune_operator.job.observed import PodView


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
