"""The plan: from all that is observed of one job to all that is to be written now. Read this file first.

unreadable spec -> Failed InvalidConfig
prepare         -> until it passes, nothing else is made
workers         -> attempts, one after the other
finish          -> stop what is at work, time to live
"""

from __future__ import annotations

import dataclasses

from finetune_api.exits import EXITS, Reason
from finetune_api.status import ConditionType, Failure, Phase
from finetune_api.text import clip
from finetune_api.times import rfc3339
from finetune_operator.job.attempt import waiting
from finetune_operator.job.attempt.attempt import attempts
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import Observed
from finetune_operator.job.policies import clean_up, hidden, prepare, workers
from finetune_operator.job.status.display import display
from finetune_operator.plan import conditions, names
from finetune_operator.plan.plan import Note, Plan


def plan(observed: Observed) -> Plan:
    """What to write now. Equal observations give equal plans; a finished job's status never changes again."""
    job = observed.job
    if job.deleting:
        return Plan(status=job.status)
    if job.spec is None:
        return _unreadable(observed)
    draft = Draft(observed, job.spec, job.status)
    if job.ended and (job.unread_status or not draft.finished):
        return _ended_elsewhere(draft)
    draft.update(observed_generation=job.generation)
    if job.status.start_time is None:
        draft.update(start_time=rfc3339(observed.now), phase=Phase.PENDING)
    if not draft.finished:
        _names_and_fields(draft)
        _step(draft)
        if draft.look_up:  # nothing is decided of what has not been seen
            return Plan(status=job.status, look_up=tuple(draft.look_up))
        _without_eta(draft)
    if draft.finished:
        clean_up.keep(draft)
    clean_up.tidy(draft)
    draft.update(display=display(draft.status, draft.spec.model.uri))
    return draft.seal()


def _ended_elsewhere(draft: Draft) -> Plan:
    """Another version ended the job, in words that this one does not know: they stay, and nothing is made."""
    clean_up.keep(draft)
    return dataclasses.replace(draft.seal(), status=draft.observed.job.status)


def _step(draft: Draft) -> None:
    if _refused(draft):
        return
    begun = any(t.job for t in attempts(draft.observed, names.WORKER)) or draft.status.attempts
    if begun:
        prepare.recall(draft)
    if draft.look_up:
        return
    if begun or prepare.passed(draft):
        workers.step(draft)
    if draft.create and (draft.observed.conflicts or draft.observed.refusals):
        _explain_not_made(draft)


def _without_eta(draft: Draft) -> None:
    """An estimated end holds only while steps are made."""
    progress = draft.status.progress
    if progress is not None and draft.status.phase not in (Phase.RUNNING, Phase.EVALUATING, Phase.SUCCEEDED):
        draft.update(progress=progress.model_copy(update={"eta_seconds": None}))


def _names_and_fields(draft: Draft) -> None:
    """Conditions that stand beside the job's walk."""
    observed = draft.observed
    hidden.seen(draft)
    if observed.job.unread_status:
        words = (
            "a newer version wrote parts of the status that this operator does not know, and leaves out:"
            f" {', '.join(observed.job.unread_status)}"
        )
        draft.note("Warning", "StatusPartlyRead", words)
    if observed.conflicts:
        message = "; ".join(observed.conflicts)
        if draft.condition(ConditionType.NAME_CONFLICT, True, Reason.NAME_CONFLICT, message):
            draft.note("Warning", "NameConflict", message)
    elif conditions.get(draft.status.conditions, ConditionType.NAME_CONFLICT):
        draft.condition(ConditionType.NAME_CONFLICT, False, "Resolved")
    ignored = observed.job.ignored_fields
    if ignored:
        words = f"a newer version wrote fields that this operator does not know: {', '.join(ignored)}"
        draft.condition(ConditionType.FIELDS_IGNORED, True, "UnknownFields", words)
    elif conditions.get(draft.status.conditions, ConditionType.FIELDS_IGNORED):
        draft.condition(ConditionType.FIELDS_IGNORED, False, "AllKnown")


def _refused(draft: Draft) -> bool:
    """Whether the API server finds an object of ours invalid: it would say so again, so the job fails."""
    invalid = next((r for r in draft.observed.refusals if r.code == 422), None)
    if invalid is None:
        return False
    message = f"the API server refuses the {invalid.kind} made from the spec: {invalid.message}"
    draft.fail(
        Failure(reason=Reason.INVALID_CONFIG, message=clip(message, 1024), hint=EXITS[Reason.INVALID_CONFIG].hint)
    )
    return True


def _explain_not_made(draft: Draft) -> None:
    """The objects of this plan could not be made the last time: say why. The reconciler tries again in a while."""
    observed = draft.observed
    phase = Phase.PENDING if not draft.holds(ConditionType.VALIDATED) else draft.status.phase or Phase.PENDING
    if observed.conflicts:
        words = f"{'; '.join(observed.conflicts)}. {EXITS[Reason.NAME_CONFLICT].hint}"
        draft.say(phase, Reason.NAME_CONFLICT, words)
    else:
        why = waiting.refused(observed.refusals[0].message)
        draft.say(phase, why.reason, why.message)
    draft.notes = [n for n in draft.notes if n.reason != "Restarting"]


def _unreadable(observed: Observed) -> Plan:
    """The stored spec does not fit: a job not begun fails, one that was begun (by a newer operator) is left alone."""
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
