"""spec.suspend: the pods are told to stop and write their checkpoint on the way out; nothing is made until it is
false again.

A queue manager suspends the Job itself, which then stays; the user's suspend deletes it, and resume makes the next
attempt.
"""

from __future__ import annotations

from finetune_api.status import ConditionType, Phase
from finetune_operator.job.attempt import history
from finetune_operator.job.children import objects
from finetune_operator.job.draft import Draft
from finetune_operator.job.evidence import Evidence
from finetune_operator.job.status.rest import QUEUED, rested
from finetune_operator.plan import conditions

SUSPENDING = "Suspending"


def enforce(draft: Draft) -> bool:
    """Whether the job is to rest: deletes what is still at work, and says Suspended when the last pod is gone."""
    if draft.spec.suspend:
        _stop(draft)
        return True
    evidence = draft.evidence
    if any(a.held and not a.doomed for a in evidence.standing):
        draft.condition(ConditionType.SUSPENDED, True, QUEUED, "a queue manager holds the workers back")
    else:
        _resume(draft)
    _restore(draft)
    return False


def _stop(draft: Draft) -> None:
    now, resting = draft.now, True
    for attempt in draft.evidence.standing:
        job, alive = attempt.job, attempt.alive(now)
        if job is not None and not attempt.done and not job.deleting:
            draft.delete.extend(objects.removal(job.name, attempt.component, job.uid))
            resting = False
        if alive:
            resting = False
            phase = Phase.RESTARTING if attempt.doomed else draft.status.phase or Phase.PENDING
            pods = f"{len(alive)} pod{'s' if len(alive) > 1 else ''}"
            draft.say(phase, "Suspending", f"{pods} still writing a checkpoint and leaving")
            draft.wake_in(attempt.until_lost(now))
    if resting:
        draft.condition(ConditionType.RUNNING, False, "Suspended")
        draft.condition(ConditionType.SUSPENDED, True, "Suspended", "spec.suspend is true")
        if draft.status.phase is not Phase.SUSPENDED:
            draft.note("Normal", "Suspended", "the pods are gone; set spec.suspend to false to go on")
        draft.say(Phase.SUSPENDED, "Suspended", "set spec.suspend to false to go on")
    else:
        draft.condition(ConditionType.RUNNING, False, SUSPENDING)
    if _interrupts(draft.evidence):
        entry = history.interrupted(draft.evidence.entry)
        draft.record({**draft.evidence.entries, entry.number: entry}.values())


def _interrupts(evidence: Evidence) -> bool:
    """Whether it is the suspend that ends the workers' attempt."""
    workers = evidence.workers
    if not (evidence.prepared and workers.attempt.number) or workers.over or workers.attempt.doomed:
        return False
    return evidence.entry.reason is None


def _resume(draft: Draft) -> None:
    rest = conditions.get(draft.status.conditions, ConditionType.SUSPENDED)
    if rest is None or rest.status != "True":
        return
    draft.update(suspended_seconds=rested(draft.status, draft.now))
    if rest.reason == QUEUED:
        draft.condition(ConditionType.SUSPENDED, False, "Admitted")
        return
    draft.condition(ConditionType.SUSPENDED, False, "Resumed")
    draft.note("Normal", "Resumed", "spec.suspend is false")


def _restore(draft: Draft) -> None:
    """Make again what a suspend, taken back after half its deletes, has left a Job at work without."""
    running = conditions.get(draft.status.conditions, ConditionType.RUNNING)
    if running is None or running.reason != SUSPENDING:
        return
    job, settings = draft.observed.job, draft.observed.settings
    for attempt in draft.evidence.standing:
        if attempt.job and not (attempt.done or attempt.job.deleting):
            used = attempt.job.restarts_used
            made = objects.attempt(job, draft.spec, settings, attempt.component, attempt.number, used, "")
            draft.create.extend(made[:-1])  # all but the Job
    draft.condition(ConditionType.RUNNING, False, "Resuming")
