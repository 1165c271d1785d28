"""How the surveyed sources are laid out for reading: blocks copied where they must be, the order's version, the
manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.exits import JobError
from finetune_api.run import RunConfig
from finetune_api.status import Finding
from finetune_trainer.prepare.layout.reblock import reblock, weigh
from finetune_trainer.prepare.rows.survey import SourceSurvey
from finetune_trainer.storage import Location, location
from finetune_trainer.stream import order
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import ExcludedRows, order_digest
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.stream.splits import SET, taken_of


@dataclass(frozen=True, slots=True)
class Layout:
    """digest: of all that decides the order of the rows (I2)."""

    manifest: DataManifest
    order: int
    digest: str
    findings: tuple[Finding, ...]


def lay_out(
    config: RunConfig,
    out: Location,
    listings: Mapping[str, Listing],
    seen: Mapping[str, SourceSurvey],
    columns: Mapping[str, str],
    bad: ExcludedRows,
    parts: str | None = None,
) -> Layout:
    """In today's order, unless the job goes on from a checkpoint that was written in an earlier one.

    `parts`: digest of those of the training source, where they were drawn. Raises JobError.
    """
    wanted = _order_of_checkpoint(config)
    today = order.version_for([weight for sizes in seen["train"].weights for weight in sizes])
    if wanted is not None and today != order.WHOLE_BLOCKS:
        earlier = _laid_out(config, out, listings, seen, columns, bad, order.WHOLE_BLOCKS, parts)
        if earlier.digest == wanted:
            return earlier
    return _laid_out(config, out, listings, seen, columns, bad, today, parts)


def _laid_out(
    config: RunConfig,
    out: Location,
    listings: Mapping[str, Listing],
    seen: Mapping[str, SourceSurvey],
    columns: Mapping[str, str],
    bad: ExcludedRows,
    version: int,
    parts: str | None,
) -> Layout:
    sources, noted = {}, list[Finding]()
    names: Sequence[str] = tuple(dict.fromkeys(columns.values()))
    for role, listing in listings.items():
        source = seen[role].source
        if version != order.WHOLE_BLOCKS:
            source = weigh(source, seen[role].weights)
        sources[role], copied = reblock(source, role, listing.store, out, names, version=version)
        noted += copied
    manifest = DataManifest(sources)
    learned = DataManifest({role: source for role, source in sources.items() if not role.startswith(SET)})
    wrong = {role: rows for role, rows in bad.items() if not role.startswith(SET)}
    digest = order_digest(learned, columns, wrong, taken_of(config.data), version, parts)  # whatever sets are judged
    return Layout(manifest, version, digest, tuple(noted))


def _order_of_checkpoint(config: RunConfig) -> str | None:
    """The digest that the checkpoint of checkpoints.resumeFrom was written with; the workers check the rest of it."""
    uri = config.checkpoints.resume_from
    if not uri:
        return None
    try:
        found = json.loads(location(uri, config.storage).find("MANIFEST.json") or b"{}")
        digest = found["identity"]["dataManifest"]
    except (JobError, ValueError, KeyError, TypeError):
        return None
    return str(digest)
