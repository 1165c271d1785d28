"""Absence is not evidence: Jobs and pods are watched apart, so a Job may be seen to end while its pods seem to run,
or are not seen at all.

Before an attempt is judged, its pods must have been seen to where its Job is; else they are looked up. Kubernetes
writes a pod's end, with its termination message, before it counts that pod in its Job: pods that are listed after the
Job was seen say all that there is.
"""

from __future__ import annotations

from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.observed import Observed
from finetune_operator.plan import names


def to_look_up(observed: Observed, attempt: Attempt, workers: int) -> str | None:
    """Name of the Job to be looked up with its pods before the attempt can be judged; `workers` are wanted."""
    job = attempt.job
    if job is not None and not (job.terminal or job.failing or job.deleting):
        return None
    name = observed.child(attempt.component, attempt.number)
    return None if name in observed.looked_up or _complete(attempt, workers) else name


def _complete(attempt: Attempt, workers: int) -> bool:
    """Whether nothing is missing: every pod has ended, or, as long as the Job has not, is known to be at work."""
    job = attempt.job
    replicas = 1 if attempt.component == names.PREPARE else job.parallelism if job else workers
    if job is not None and job.terminal:
        return len({p.index for p in attempt.pods if p.terminal}) >= replicas
    at_work = len(attempt.pods) - sum(p.terminal for p in attempt.pods)
    if job is not None and at_work < job.active + job.terminating:
        return False
    return len({p.index for p in attempt.pods}) >= replicas
