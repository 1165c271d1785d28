"""Which trainer image a pod runs: the prepare step takes what the spec or the operator names, and the workers what
that one ran.

An upgrade of the operator, or a tag that is pushed again, must not change a job's trainer in mid-run: its checkpoints,
order of rows and results belong to one version.
"""

from __future__ import annotations

import re

from finetune_api.job import Spec
from finetune_api.status import Image
from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.observed import PlanSettings

_DIGEST = re.compile(r"(@|^)(sha256:[0-9a-f]{64})$")
"""At the end of a container's imageID: `repository@sha256:…` of what was pulled, `sha256:…` of what was loaded."""
_TAG = re.compile(r":[^/:]+$")


def named(spec: Spec, settings: PlanSettings) -> str:
    """What the spec names, else the operator's own."""
    return spec.image or settings.trainer_image


def ran(attempt: Attempt, spec: Spec, settings: PlanSettings) -> Image:
    """What the pods of that attempt run or ran."""
    name = (attempt.job.image if attempt.job else "") or named(spec, settings)
    found = next((m for p in attempt.pods if (m := _DIGEST.search(p.image_id))), None)
    if found is None:
        return Image(name=name, reference=name)
    # Without a repository it is the number of an image that was loaded by hand: no registry knows it.
    pulled = bool(found[1]) and "@" not in name
    return Image(name=name, reference=f"{_TAG.sub('', name)}@{found[2]}" if pulled else name, digest=found[2])


def of_workers(known: Image | None, made: tuple[Attempt, ...], spec: Spec, settings: PlanSettings) -> str:
    """What the container of a new attempt names; `known` is the status's image."""
    if known is not None:
        return known.reference
    # A status of before images were kept: as the attempts so far.
    before = next((a.job.image for a in reversed(made) if a.job and a.job.image), None)
    return before or named(spec, settings)
