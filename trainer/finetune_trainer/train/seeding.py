"""Seeds derived from where in the run we are, so that no random generator runs on from step to step (I3).

Dropout of a micro-batch is drawn from (seed, step, rank, micro-batch): a resumed run draws what the uninterrupted one
drew, and nothing about generators needs to be saved.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, *place: int | str) -> int:
    """63 bits that depend on all parts."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_micro_batch(seed: int, step: int, rank: int, micro: int) -> None:
    """Seed torch's generators for one forward and backward pass."""
    torch.manual_seed(seed_for(seed, "noise", step, rank, micro))
