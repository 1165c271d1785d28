"""How much disk the workers' scratch volume may take: what the spec says, else what the model needs."""

from __future__ import annotations

import math

from finetune_api.job import Spec
from finetune_api.status import Resolved

LEAST = "10Gi"
_COPIES, _REST_GIB = 3, 4
"""The model as it was fetched, its export, and a merge between the two; caches, shards of data and logs besides."""
_GIB = 1 << 30


def size(resolved: Resolved | None) -> str:
    """The default for a model of the size that the prepare step found; status of earlier versions knows none."""
    needed = _COPIES * ((resolved and resolved.model_bytes) or 0) / _GIB + _REST_GIB
    return LEAST if needed <= 10 else f"{math.ceil(needed)}Gi"


def sized(spec: Spec, resolved: Resolved | None) -> Spec:
    """The spec with the size filled in where it leaves it open."""
    if spec.workers.scratch_size is not None:
        return spec
    workers = spec.workers.model_copy(update={"scratch_size": size(resolved)})
    return spec.model_copy(update={"workers": workers})
