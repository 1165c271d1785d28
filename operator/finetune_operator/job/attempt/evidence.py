"""Absence is not evidence: Jobs and pods are watched apart, so a Job may be seen to end while its pods seem to run,
or unseen.

Before an attempt is judged, its pods must have been seen to where its Job is; else they are looked up. Kubernetes
writes a pod's end, with its last word, before it counts that pod in its Job: pods that are listed after the Job was
seen say all that there is.
"""

from __future__ import annotations

from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.draft import Draft
from finetune_operator.plan import names


def lacking(draft: Draft, attempt: Attempt) -> bool:
    """Whether the attempt cannot be judged yet: its Job and pods are then to be looked up, and nothing else is done."""
    job, observed = attempt.job, draft.observed
    if job is not None and not (job.terminal or job.failing or job.deleting):
        return False
    name = names.child(observed.job.name, observed.job.uid, attempt.component, attempt.number)
    if name in observed.looked_up or _seen(draft, attempt):
        return False
    draft.look_up.append(name)
    return True


def _seen(draft: Draft, attempt: Attempt) -> bool:
    """Whether nothing is missing: every pod has ended, or, as long as the Job has not, is known to be at work."""
    job = attempt.job
    replicas = 1 if attempt.component == names.PREPARE else job.parallelism if job else draft.spec.workers.replicas
    if job is not None and job.terminal:
        return len({p.index for p in attempt.pods if p.terminal}) >= replicas
    at_work = len(attempt.pods) - sum(p.terminal for p in attempt.pods)
    if job is not None and at_work < job.active + job.terminating:
        return False
    return len({p.index for p in attempt.pods}) >= replicas
