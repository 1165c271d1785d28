"""The prepare step: a CPU pod that checks everything before a worker, and with it an accelerator, is asked for.

Its first attempt is made at once; those that follow one that ended, within the budget, and after a wait from the third
on.
"""

from __future__ import annotations

from finetune_api.status import Failure, Phase
from finetune_operator.job.attempt import restart
from finetune_operator.job.attempt.attempt import next_number
from finetune_operator.job.children import image, objects
from finetune_operator.job.draft import Draft
from finetune_operator.plan import names


def enforce(draft: Draft) -> bool:
    if draft.evidence.prepared:
        return False
    step = draft.evidence.prepare
    current = step.attempt
    if not current.number:
        _make(draft, next_number(step.attempts, 0), 0)
        draft.say(Phase.PENDING, "Preparing", "the prepare pod is being made")
        return True
    if not (step.over and step.cause and current.job):
        return False
    cause = step.cause
    follows = restart.after(
        cause,
        used=current.job.restarts_used,
        progress=False,
        fruitless=current.number,
        max_restarts=draft.spec.restart_policy.max_restarts,
        before=step.place_before,
    )
    if isinstance(follows, Failure):
        draft.fail_attempt(follows, cause.at)
        return True
    wait = (current.job.finished or cause.at or draft.now) + follows.delay - draft.now
    draft.say(Phase.RESTARTING, cause.reason, f"{cause.message}; the prepare step is tried again")
    if wait > 0:
        draft.wake_in(wait)
        return True
    _make(draft, next_number(step.attempts, current.number), follows.used)
    draft.note("Warning", "Restarting", f"prepare step: {cause.reason}: {cause.message}")
    return True


def _make(draft: Draft, number: int, used: int) -> None:
    job, settings = draft.observed.job, draft.observed.settings
    named = image.named(draft.spec, settings)
    draft.create.extend(objects.attempt(job, draft.spec, settings, names.PREPARE, number, used, named))
