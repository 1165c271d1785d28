"""spec.suspend: the pods are told to stop and write their checkpoint on the way out; nothing is made until it is
false again.

A queue manager suspends the Job itself, which then stays; the user's suspend deletes it, and resume makes the next
attempt.
"""

from __future__ import annotations

from finetune_api.status import AttemptStatus, ConditionType, Phase
from finetune_api.times import seconds
from finetune_operator.job.attempt import history
from finetune_operator.job.attempt.attempt import LOST_SECONDS, Attempt
from finetune_operator.job.children import objects
from finetune_operator.job.draft import Draft
from finetune_operator.plan import conditions

SUSPENDING = "Suspending"
QUEUED = "WaitingForQueue"
"""Reason of the condition while a queue manager, not the user, lets the job wait: that does not count against the
deadline either."""


def hold(draft: Draft, *components: tuple[Attempt, ...]) -> bool:
    """Whether the job is to rest: deletes what is still at work, and says Suspended when the last pod is gone."""
    if not draft.spec.suspend:
        if any(attempt.held and not attempt.doomed for attempts in components for attempt in attempts):
            draft.condition(ConditionType.SUSPENDED, True, QUEUED, "a queue manager holds the workers back")
        else:
            _resume(draft)
        _restore(draft, components)
        return False
    resting = True
    for attempt in (t for attempts in components for t in attempts):
        if attempt.job is not None and not attempt.done and not attempt.job.deleting:
            draft.delete.extend(objects.removal(attempt.job.name, attempt.component, attempt.job.uid))
            resting = False
        alive = attempt.alive(draft.now)
        if alive:
            resting = False
            draft.say(
                Phase.RESTARTING if attempt.doomed else draft.status.phase or Phase.PENDING,
                "Suspending",
                _stopping(len(alive)),
            )
            wake_when_lost(draft, attempt)
    if not resting:
        draft.condition(ConditionType.RUNNING, False, SUSPENDING)
        return True
    draft.condition(ConditionType.RUNNING, False, "Suspended")
    draft.condition(ConditionType.SUSPENDED, True, "Suspended", "spec.suspend is true")
    if draft.status.phase is not Phase.SUSPENDED:
        draft.note("Normal", "Suspended", "the pods are gone; set spec.suspend to false to go on")
    draft.say(Phase.SUSPENDED, "Suspended", "set spec.suspend to false to go on")
    return True


def taken_back(draft: Draft, attempt: Attempt, entry: AttemptStatus) -> AttemptStatus:
    """The attempt's entry, less a suspend that was written down but ended before the Job was deleted: the pods go
    on."""
    stays = attempt.job is not None and not attempt.job.deleting and entry.end_time is None
    if draft.spec.suspend or not stays or not history.suspended(entry):
        return entry
    return entry.model_copy(update={"reason": None, "message": None})


def suspended_for(draft: Draft) -> float:
    """Seconds that the job has rested so far."""
    total = draft.status.suspended_seconds or 0.0
    condition = conditions.get(draft.status.conditions, ConditionType.SUSPENDED)
    since = seconds(condition.last_transition_time) if condition and condition.status == "True" else None
    return total + (max(0.0, draft.now - since) if since is not None else 0.0)


def wake_when_lost(draft: Draft, attempt: Attempt) -> None:
    """Plan again when the first pod that does not go away counts as lost."""
    waits = [p.deletion + LOST_SECONDS - draft.now for p in attempt.pods if p.deletion is not None and not p.terminal]
    waits = [w for w in waits if w > 0]
    if waits:
        draft.wake_in(min(waits))


def _resume(draft: Draft) -> None:
    rest = conditions.get(draft.status.conditions, ConditionType.SUSPENDED)
    if rest is None or rest.status != "True":
        return
    draft.update(suspended_seconds=suspended_for(draft))
    if rest.reason == QUEUED:
        draft.condition(ConditionType.SUSPENDED, False, "Admitted")
        return
    draft.condition(ConditionType.SUSPENDED, False, "Resumed")
    draft.note("Normal", "Resumed", "spec.suspend is false")


def _restore(draft: Draft, components: tuple[tuple[Attempt, ...], ...]) -> None:
    """Make again what a suspend, taken back after half its deletes, has left a Job at work without."""
    running = conditions.get(draft.status.conditions, ConditionType.RUNNING)
    if running is None or running.reason != SUSPENDING:
        return
    observed = draft.observed
    for attempt in (t for attempts in components for t in attempts if t.job and not (t.done or t.job.deleting)):
        used = attempt.job.restarts_used if attempt.job else 0
        made = objects.attempt(observed.job, draft.spec, observed.settings, attempt.component, attempt.number, used, "")
        draft.create.extend(made[:-1])  # all but the Job
    draft.condition(ConditionType.RUNNING, False, "Resuming")


def _stopping(pods: int) -> str:
    return f"{pods} pod{'s' if pods > 1 else ''} still writing a checkpoint and leaving"
