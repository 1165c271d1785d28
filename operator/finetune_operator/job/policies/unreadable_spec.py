"""The stored spec does not fit: a job not begun fails, one that was begun (by a newer operator) is left alone."""

from __future__ import annotations

from finetune_api.exits import EXITS, Reason
from finetune_api.status import ConditionType, Failure, Phase
from finetune_api.text import clip
from finetune_api.times import rfc3339
from finetune_operator.job.observed import Observed
from finetune_operator.plan import conditions
from finetune_operator.plan.plan import Note, Plan


def plan(observed: Observed) -> Plan:
    """The whole plan: without a spec there is no draft."""
    job = observed.job
    status = job.status.model_copy(update={"observed_generation": job.generation})
    finished = job.ended
    if finished and job.unread_status:
        return Plan(status=job.status)
    message = clip("; ".join(job.spec_errors) or "spec cannot be read", 1024)
    if finished or status.attempts or observed.jobs:
        words = clip(f"this operator cannot read the spec, and leaves the job alone: {message}", 1024)
        update = {} if finished else {"reason": Reason.INVALID_CONFIG.value, "message": words}
        return Plan(status=status.model_copy(update=update))
    failure = Failure(
        reason=Reason.INVALID_CONFIG,
        message=message,
        hint=EXITS[Reason.INVALID_CONFIG].hint,
        field=clip(job.spec_errors[0].partition(": ")[0], 128) if job.spec_errors else None,
    )
    found = conditions.put(
        status.conditions, ConditionType.FAILED, True, failure.reason, message, job.generation, observed.now
    )
    moment = rfc3339(observed.now)
    status = status.model_copy(
        update={
            "phase": Phase.FAILED,
            "reason": failure.reason,
            "message": message,
            "failure": failure,
            "conditions": found,
            "start_time": status.start_time or moment,
            "completion_time": moment,
        }
    )
    return Plan(status=status, notes=(Note("Warning", "Failed", clip(f"{failure.reason}: {message}", 1024)),))
