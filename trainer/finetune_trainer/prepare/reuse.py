"""Whether the profile of an earlier prepare step of the job still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.output import completed
from finetune_trainer.storage import Location
from finetune_trainer.stream.blocks import CACHE
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.parts import PARTS_KEY, are_drawn, drawn_otherwise
from finetune_trainer.stream.profile import Profile, find_profile
from finetune_trainer.stream.sources.listing import Listing


def basis_of(config: RunConfig, revision: str | None, listings: Mapping[str, Listing]) -> str:
    """Digests of the configuration and of the listings, between them all that a profile is made from.

    How many processes there are, the attempt, and where reports go are not: a job may go on with other numbers of
    workers.
    """
    plain = config.to_json()
    kept = {name: plain.get(name) for name in ("task", "model", "data", "method", "training", "evaluation")}
    if settings := config.task_settings:
        kept["taskSettings"] = settings.to_json()
    lists = {role: listing.digest for role, listing in listings.items()}
    return f"{_digest([kept, revision])}:{_digest(lists)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def reusable_profile(config: RunConfig, out: Location, basis: str) -> Profile | None:
    """The profile that is there, if it was made from the same; JobError if checkpoints hang on one that was not."""
    found = find_profile(out)
    if found is None or found[1].job_id != config.job.id:
        return None
    if found[1].basis == basis:
        known = _says_the_parts(config, found[1])
        if (known and _copies_are_there(out, *found)) or completed(out, config):
            return found[1]
        if known:
            return None
    if next(iter(out.list("ckpt/")), None) is None:
        return None
    if found[1].basis == basis:
        raise drawn_otherwise(out)
    if found[1].basis.partition(":")[0] != basis.partition(":")[0]:
        raise JobError(
            Reason.CHECKPOINT_MISMATCH,
            f"{out.uri('ckpt')} holds checkpoints of this job with another configuration",
            field="spec",
            hint="Restore the configuration to go on, or start a new job with an output of its own.",
        )
    raise JobError(
        Reason.DATA_CHANGED,
        "the objects that the data URIs match are not those that this job's checkpoints were trained on",
        field="spec.data",
        hint="Restore the data to go on, or start a new job with an output of its own.",
    )


def _says_the_parts(config: RunConfig, profile: Profile) -> bool:
    """Whether it says which rows each split has: profiles of earlier versions held out rows by their place."""
    return profile.parts is not None or not are_drawn(config)


def _copies_are_there(out: Location, manifest: DataManifest, profile: Profile) -> bool:
    """Whether all blocks that were copied still lie in the cache, which are swept when a job has succeeded; and the
    parts.
    """
    if profile.parts is not None and out.head(PARTS_KEY) is None:
        return False
    blocks = [b for source in manifest.sources.values() for item in source.objects for b in item.blocks]
    blocks += [b for copies in profile.held_out.values() for b in copies]
    wanted = {f"{CACHE}{block.cache}" for block in blocks if block.cache}
    return not wanted or wanted <= {info.key for info in out.list(CACHE)}
