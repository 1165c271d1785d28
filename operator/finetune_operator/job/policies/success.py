"""The workers' Job is complete: the job has succeeded."""

from __future__ import annotations

from finetune_api.status import OutputStatus
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    workers = draft.evidence.workers
    job = workers.attempt.job
    if not (draft.evidence.prepared and workers.succeeded and job):
        return False
    if draft.status.output is None:
        draft.update(output=OutputStatus(uri=draft.spec.output.uri))
    progress = draft.status.progress
    if progress is not None:
        draft.update(progress=progress.model_copy(update={"percent": 100.0, "eta_seconds": 0.0}))
    draft.succeed(job.finished)
    return True
