"""What the user should know of their storage: what it cannot decide, and what is copied to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.storage import Location
from finetune_trainer.stream.blocks import CACHE
from finetune_trainer.stream.manifest import Block

ANNOUNCED_BYTES = 64 << 20


def conditional_writes(out: Location) -> list[Finding]:
    """Storage that cannot decide between two writers: what that means, and for whom."""
    if out.store.conditional_writes:
        return []
    message = (
        f"The storage of {clip(out.uri(), 128)} ignores If-None-Match: two writers at the same moment (an old worker"
        " pod that lives on, or another job with this output.uri) are told apart by a check only. Checkpoints are"
        " safe from all others."
    )
    return [Finding(kind="NoConditionalWrites", message=message)]


def held_out_copies(held_out: Mapping[str, Sequence[Block]], out: Location) -> list[Finding]:
    """Copies of held-out rows that take room worth a word."""
    size = sum(block.end for blocks in held_out.values() for block in blocks)
    if size < ANNOUNCED_BYTES:
        return []
    where = clip(out.uri(CACHE), 128)
    message = (
        f"The held-out rows were copied to {where} ({size / 2**20:.0f} MiB): evaluations read no others. Deleted when"
        " the job succeeds."
    )
    return [Finding(kind="Copied", count=sum(b.rows for blocks in held_out.values() for b in blocks), message=message)]
