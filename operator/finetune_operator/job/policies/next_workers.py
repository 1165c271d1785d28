"""The workers' next attempt: made when the last one is over, within the restart budget, and never while a pod of an
earlier one is at work."""

from __future__ import annotations

from finetune_api.status import ConditionType, Failure, Phase
from finetune_api.times import seconds
from finetune_operator.job.attempt import history, restart
from finetune_operator.job.attempt.causes import Cause
from finetune_operator.job.children import image, objects, scratch
from finetune_operator.job.draft import Draft
from finetune_operator.plan import names


def enforce(draft: Draft) -> bool:
    workers = draft.evidence.workers
    number = workers.attempt.number
    if not draft.evidence.prepared or (number and not workers.over):
        return False
    if not number:
        _make(draft, 1, 0, None)
        return True
    record, cause, entry = history.record(draft.status), workers.cause, draft.evidence.entry
    used = workers.attempt.job.restarts_used if workers.attempt.job else record.used
    if cause is None or history.suspended(entry):
        _make(draft, number + 1, used, None)
        return True
    follows = restart.after(
        cause,
        used=used,
        progress=record.progress,
        fruitless=record.fruitless,
        max_restarts=draft.spec.restart_policy.max_restarts,
        before=next((a.place for a in draft.status.attempts if a.number == number - 1), None),
    )
    ended = seconds(entry.end_time)
    if isinstance(follows, Failure):
        draft.fail(follows, ended)
        return True
    wait = (ended or draft.now) + follows.delay - draft.now
    if wait > 0:
        draft.condition(ConditionType.RUNNING, False, "Restarting")
        words = (
            f"attempt {number + 1} waits {follows.delay:g} s, since the last ones came to nothing; the last"
            f" one: {cause.message}"
        )
        draft.say(Phase.RESTARTING, cause.reason, words)
        draft.wake_in(wait)
        return True
    _make(draft, number + 1, follows.used, cause)
    return True


def _make(draft: Draft, number: int, used: int, cause: Cause | None) -> None:
    """Make an attempt, once no pod of an earlier one is at work; `cause` ended the last one, None: a suspension."""
    made, reason = draft.evidence.workers.attempts, cause.reason if cause else "Resuming"
    draft.condition(ConditionType.RUNNING, False, "Restarting" if number > 1 else "Starting")
    busy = next((a for a in made if a.alive(draft.now)), None)
    if busy is not None:
        pod = busy.alive(draft.now)[0].name
        draft.say(Phase.RESTARTING, reason, f"waiting for pod {pod} of attempt {busy.number} to leave")
        draft.wake_in(busy.until_lost(draft.now))
        return
    job, settings = draft.observed.job, draft.observed.settings
    named = image.of_workers(draft.status.image, made, draft.spec, settings)
    spec = scratch.sized(draft.spec, draft.status.resolved)
    draft.create.extend(objects.attempt(job, spec, settings, names.WORKER, number, used, named))
    if number == 1:
        draft.say(Phase.QUEUED, "Starting", "the workers are being made")
        return
    again = f"after {cause.reason}: {cause.message}" if cause else "after the suspension"
    draft.say(Phase.RESTARTING, reason, f"attempt {number} is being made, {again}")
    if cause:
        draft.note("Warning", "Restarting", f"attempt {number} follows {again}")
