"""Which checkpoints stay, and how the others go: manifest first, so that none is ever half-deleted (I5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from finetune_trainer.checkpoint.best import rank
from finetune_trainer.checkpoint.manifest import KEY, folder
from finetune_trainer.checkpoint.snapshot import CheckpointRef
from finetune_trainer.storage import Location

_OBJECT = re.compile(r"^ckpt/(\d+)/(\d+)/")


def best_of(refs: Iterable[CheckpointRef], metric: str) -> CheckpointRef | None:
    """The checkpoint with the best evaluation; the earlier one where two are equal."""
    return next(iter(best_first(refs, metric)), None)


def best_first(refs: Iterable[CheckpointRef], metric: str) -> list[CheckpointRef]:
    """Those that were judged, the best first; of equal ones the earlier."""
    judged = [(found, -ref.step, ref) for ref in refs if (found := rank(ref.metrics, metric)) is not None]
    return [ref for *_, ref in sorted(judged, key=lambda entry: entry[:2], reverse=True)]


def kept(
    refs: Sequence[CheckpointRef], keep_last: int, keep_best: bool, metric: str, best: int = 1
) -> list[CheckpointRef]:
    """Those that stay, newest first: the last ones, and so many of the best. Of a step that was saved again, with its
    evaluation, the later generation's.
    """
    latest = {r.step: r for r in sorted(refs, key=lambda r: r.generation or 0)}
    newest = sorted(latest.values(), key=lambda r: r.step, reverse=True)
    bests = best_first(newest, metric)[:best] if keep_best else []
    return [ref for i, ref in enumerate(newest) if i < keep_last or ref in bests]


def delete(out: Location, refs: Iterable[CheckpointRef]) -> None:
    """Remove checkpoints of this job: the manifest, then the data."""
    for ref in refs:
        assert ref.generation is not None
        prefix = folder(ref.generation, ref.step) + "/"
        keys = [info.key for info in out.list(prefix)]
        out.delete(key for key in keys if KEY.match(key))
        out.delete(key for key in keys if not KEY.match(key))


def sweep(out: Location, live: Iterable[CheckpointRef], newest: int) -> int:
    """Remove what no live checkpoint needs: uncommitted data and unfinished uploads of dead writers, and what an older
    generation wrote past the step that a newer one resumed from. Returns how many objects went."""
    needed = {(ref.generation, ref.step) for ref in live}
    stale = []
    for info in out.list("ckpt/"):
        match = _OBJECT.match(info.key)
        if match and (int(match.group(1)), int(match.group(2))) not in needed and int(match.group(1)) <= newest:
            stale.append(info.key)
    out.delete(key for key in stale if KEY.match(key))
    out.delete(key for key in stale if not KEY.match(key))
    left = [found for found in out.unfinished() if (at := _OBJECT.match(found.key)) and int(at.group(1)) <= newest]
    out.discard(left)
    return len(stale)
