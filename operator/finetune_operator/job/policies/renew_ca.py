"""A new CA of the report server is handed to workers that are at work; they read it again for each connection."""

from __future__ import annotations

from finetune_operator.job.children import objects
from finetune_operator.job.draft import Draft
from finetune_operator.plan import names
from finetune_operator.plan.plan import Patch


def enforce(draft: Draft) -> bool:
    ca, job = draft.observed.settings.report_ca, draft.evidence.workers.attempt.job
    if not draft.evidence.prepared or job is None or not ca or job.ca_digest in ("", objects.ca_digest(ca)):
        return False
    draft.patch.append(Patch("ConfigMap", job.name, None, {"data": {"ca.crt": ca}}))
    draft.patch.append(
        Patch("Job", job.name, job.uid, {"metadata": {"annotations": {names.CA_DIGEST: objects.ca_digest(ca)}}})
    )
    return False
