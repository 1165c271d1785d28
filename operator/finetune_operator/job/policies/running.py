"""Where the workers are, and why they wait if they do; the condition Running holds while they make steps."""

from __future__ import annotations

from finetune_api.status import ConditionType, Phase
from finetune_operator.job.attempt import queue_manager, waiting
from finetune_operator.job.draft import Draft
from finetune_operator.job.status import phase
from finetune_operator.job.status.rest import QUEUED

_STEPPING = (Phase.RUNNING, Phase.EVALUATING)


def enforce(draft: Draft) -> bool:
    if not draft.evidence.prepared:
        return False
    workers = draft.evidence.workers
    current = workers.attempt
    now_in = phase.of_workers(current, workers.report, draft.status)
    began = draft.condition(ConditionType.RUNNING, now_in in _STEPPING, now_in.value)
    if now_in in _STEPPING and began:
        draft.note("Normal", "Running", f"attempt {current.number} makes steps")
    why = waiting.why(draft.observed, current)
    if now_in in _STEPPING:
        draft.say(now_in)
    elif current.held:
        again = " again" if queue_manager.was_preempted(draft.evidence.entry) else ""
        draft.say(now_in, QUEUED, f"{queue_manager.whose(current)} has not admitted the workers{again}")
    elif why:
        draft.say(now_in, why.reason, why.message)
    else:
        before = draft.evidence.entries.get(current.number - 1)
        waits = "wait for their nodes" if now_in is Phase.QUEUED else "load the model and the data"
        words = f"attempt {current.number}, after {before.reason}: " if before else ""
        draft.say(now_in, "Starting", f"{words}the workers {waits}")
    return False
