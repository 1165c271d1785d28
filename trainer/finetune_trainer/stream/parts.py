"""The parts of the training source: for each of its rows one number that says which splits have it.

Drawn once by the prepare step and kept beside the manifest, one byte a row over all objects in order; a process loads
them once. They are there only where they decide anything: with a held-out fraction, rows drawn for each class, or
folds.
"""

from __future__ import annotations

import hashlib

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.storage import Location

PARTS_KEY = "prepare/parts.zst"
UNUSED, TRAIN, VALIDATION, TEST, FIRST_FOLD = 0, 1, 2, 3, 4
"""Bad rows and those left out are UNUSED; rows of fold K (from 1) have FIRST_FOLD + K - 1, and are training rows."""
MOST_FOLDS = 20

_loaded: dict[str, np.ndarray] = {}


def are_drawn(config: RunConfig) -> bool:
    """Whether the job needs parts: else a split has all usable rows of its source."""
    data = config.data
    held = any(source is not None and source.fraction is not None for source in (data.validation, data.test))
    return held or data.train.per_class is not None or config.evaluation.folds is not None


def drawn_otherwise(out: Location) -> JobError:
    """What was prepared by an earlier version, whose profiles do not say which rows each split has."""
    return JobError(
        Reason.CHECKPOINT_MISMATCH,
        f"{out.uri()} was prepared by an earlier version, which held out other rows: going on from its checkpoints"
        " would judge the model on rows that it was taught",
        field="spec.data",
        hint="Start a new job with an output of its own, or finish this one with the trainer image that began it.",
    )


def digest_of(parts: np.ndarray) -> str:
    """SHA-256 of all parts."""
    return hashlib.sha256(parts.astype(np.uint8, copy=False).tobytes()).hexdigest()


def save_parts(out: Location, parts: np.ndarray) -> None:
    """Write them, compressed."""
    import zstandard

    out.put(PARTS_KEY, zstandard.compress(parts.astype(np.uint8, copy=False).tobytes()))


def load_parts(out: Location, digest: str) -> np.ndarray:
    """The parts of this digest, uint8 (rows,), read once a process. Raises JobError: DataChanged."""
    import zstandard

    if digest not in _loaded:
        stored = out.find(PARTS_KEY)
        try:
            plain = zstandard.ZstdDecompressor().decompressobj().decompress(stored or b"")
        except zstandard.ZstdError:
            plain = b""
        parts = np.frombuffer(plain, dtype=np.uint8)
        if digest_of(parts) != digest:
            what = "is gone" if stored is None else "is not what the job wrote there"
            raise JobError(
                Reason.DATA_CHANGED,
                f"{out.uri(PARTS_KEY)} {what}: it says which rows are held out",
                hint="Start a new job; leave its output prefix alone while it runs.",
            )
        _loaded.clear()
        _loaded[digest] = parts
    return _loaded[digest]
