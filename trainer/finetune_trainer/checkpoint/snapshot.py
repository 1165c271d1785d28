"""What a checkpoint holds (Snapshot) and how one is named (CheckpointRef)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from finetune_api.status import Checkpoint


@dataclass
class Snapshot:
    """Everything that the next step depends on.

    `tensors` are named "model.…" (only what is trained, for lora and freeze), "optimizer.…" and, where weights are
    averaged, "average.…"; the part before the
    first dot is a namespace that can be loaded alone. `meta` is JSON: non-finite numbers are kept, tuples come back as
    lists. `blobs` are opaque files, such as the events so far.
    """

    step: int
    cursor: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A committed checkpoint.

    `generation` is None for another job's (checkpoints.resumeFrom); `digest` is its manifest's.
    """

    generation: int | None
    step: int
    uri: str
    digest: str
    bytes: int
    time: str
    metrics: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, to tell the other ranks."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**value)

    def listed(self, best: bool) -> Checkpoint:
        """As the job's status lists it."""
        metrics = dict(list((self.metrics or {}).items())[:4]) or None
        return Checkpoint(
            step=self.step,
            uri=self.uri,
            bytes=self.bytes,
            digest=self.digest,
            time=self.time,
            metrics=metrics,
            best=best,
        )
