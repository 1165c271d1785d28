"""The plan: from all that is observed of one job to all that is to be written now. Read this file first.

The evidence is gathered once; then the policies are asked in the order of these lists. Each does its part of the draft;
one that returns True leaves nothing to those after it in its list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from finetune_api.status import Phase
from finetune_api.times import rfc3339
from finetune_operator.job import evidence
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import Observed
from finetune_operator.job.policies import (
    clean_up,
    deadline,
    ending,
    eta,
    failure,
    fields_ignored,
    hidden_namespace,
    idle_services,
    look_up,
    lost_pods,
    name_conflict,
    next_prepare,
    next_workers,
    node_silent,
    not_made,
    old_attempts,
    one_at_a_time,
    output_in_use,
    preparing,
    read_events,
    record_attempts,
    refused,
    renew_ca,
    reports_degraded,
    requeue,
    running,
    status_partly_read,
    success,
    suspend,
    ttl,
    unreadable_spec,
    validated,
)
from finetune_operator.job.status.display import display
from finetune_operator.plan.plan import Plan

Policies = Iterable[Callable[[Draft], bool]]

STEP: Policies = (
    # what stands beside the job's walk
    hidden_namespace.enforce,
    status_partly_read.enforce,
    name_conflict.enforce,
    fields_ignored.enforce,
    # what keeps it from being decided on
    refused.enforce,
    output_in_use.enforce,
    look_up.enforce,
    # what was heard
    validated.enforce,
    requeue.enforce,
    record_attempts.enforce,
    # how it ends, or rests
    success.enforce,
    failure.enforce,
    deadline.enforce,
    suspend.enforce,
    # the next attempt of the prepare step, then of the workers
    one_at_a_time.enforce,
    old_attempts.enforce,
    next_prepare.enforce,
    next_workers.enforce,
    # where the current one is
    ending.enforce,
    node_silent.enforce,
    preparing.enforce,
    running.enforce,
    renew_ca.enforce,
    read_events.enforce,
    lost_pods.enforce,
    reports_degraded.enforce,
)
"""One step of a job that is not over."""
AFTER_STEP: Policies = (not_made.enforce, eta.enforce)
WHEN_OVER: Policies = (clean_up.enforce, ttl.enforce)
ALWAYS: Policies = (idle_services.enforce,)


def plan(observed: Observed) -> Plan:
    """What to write now. Equal observations give equal plans; a finished job's status never changes again."""
    job = observed.job
    if job.deleting:
        return Plan(status=job.status)
    if job.spec is None:
        return unreadable_spec.plan(observed)
    draft = Draft(observed, job.spec, job.status, evidence.gather(observed, job.spec, job.status))
    if job.ended and (job.unread_status or not draft.finished):  # another version ended it, in words unknown to this
        _run(WHEN_OVER, draft)
        return dataclasses.replace(draft.seal(), status=job.status)
    draft.update(observed_generation=job.generation)
    if job.status.start_time is None:
        draft.update(start_time=rfc3339(observed.now), phase=Phase.PENDING)
    if not draft.finished:
        _run(STEP, draft)
        if draft.look_up:  # nothing is decided of what has not been seen
            return Plan(status=job.status, look_up=tuple(draft.look_up))
        _run(AFTER_STEP, draft)
    if draft.finished:
        _run(WHEN_OVER, draft)
    _run(ALWAYS, draft)
    draft.update(display=display(draft.status, draft.spec.model.uri))
    return draft.seal()


def _run(policies: Policies, draft: Draft) -> None:
    for enforce in policies:
        if enforce(draft):
            return
