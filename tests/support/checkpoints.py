"""States that are pure functions of their step, configs for them, and stores that fail where a test says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from finetune_api.base import parse
from finetune_api.run import RunConfig, StorageAccess
from finetune_trainer.checkpoint import CheckpointRef, Snapshot, manifest, parts
from finetune_trainer.storage import Location, ObjectInfo, ObjectStore, Read, Unfinished


def config(
    uri: str, *, attempt: int = 1, job: str = "uid-1", access: StorageAccess | None = None, **changes: Any
) -> RunConfig:
    """A classification job whose output is `uri`; `changes` replace whole sections."""
    base = {
        "job": {"name": f"ns/{job}", "id": job},
        "attempt": attempt,
        "task": "text-classification",
        "model": {"uri": "s3://models/bert"},
        "data": {"train": {"uri": "s3://data/*.jsonl"}, "validation": {"fraction": 0.1}},
        "method": {"type": "full"},
        "training": {},
        "evaluation": {},
        "checkpoints": {},
        "output": {"uri": uri},
        "world": {},
        "storage": (access or StorageAccess()).to_json(),
    }
    return parse(RunConfig, base | changes, local=True)


def own(out: Location, job: str = "uid-1") -> None:
    """The owner's mark, as the prepare step writes it."""
    out.put("job.json", json.dumps({"jobId": job, "name": f"ns/{job}"}).encode())


def state(step: int) -> Snapshot:
    """What a run has at this step: every dtype and rank that occurs, all values drawn from the step."""
    source = torch.Generator().manual_seed(step)
    weights = torch.randn(32, 16, generator=source)
    tensors = {
        "model.layer.weight": weights,
        "model.layer.bias": torch.randn(16, generator=source).to(torch.bfloat16),
        "model.scale": torch.tensor(step / 3),
        "model.empty": torch.zeros(0, 4),
        "optimizer.layer.weight.exp_avg": torch.randn(32, 16, generator=source).t(),  # not contiguous
        "optimizer.layer.weight.exp_avg_sq": torch.rand(32, 16, generator=source, dtype=torch.float64),
        "optimizer.step": torch.tensor(step, dtype=torch.int64),
    }
    meta = {"scheduler": {"last": step}, "best": float("-inf"), "noise": float("nan"), "history": [[step, 0.1]]}
    return Snapshot(
        step,
        {"step": step, "epoch": step // 100, "row": step * 7},
        tensors,
        meta,
        {"events": f"events up to {step}".encode() * 50},
    )


def same(a: Snapshot, b: Snapshot) -> bool:
    """Equal bit for bit."""
    if (a.step, a.cursor, json.dumps(a.meta), a.blobs) != (b.step, b.cursor, json.dumps(b.meta), b.blobs) or set(
        a.tensors
    ) != set(b.tensors):
        return False
    return all(same_bits(tensor, b.tensors[name]) for name, tensor in a.tensors.items())


def verify(out: Location, ref: CheckpointRef) -> None:
    """Read all parts of a checkpoint and compare SHA-256 too. Raises DamagedError."""
    assert ref.generation is not None
    where = out.child(manifest.folder(ref.generation, ref.step))
    parts.unpack(where, manifest.parse(where.get(manifest.NAME)), full=True)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.numel() == 0 or torch.equal(
        a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8)
    )


class FaultyStore:
    """A store that tells `fault(operation, key, done)` before and after each write and delete; what it raises is the
    answer.
    """

    def __init__(self, inner: ObjectStore, fault: Callable[[str, str, bool], None]) -> None:
        self.inner, self.fault = inner, fault
        self.conditional_writes = inner.conditional_writes

    def name(self, key: str) -> str:
        return self.inner.name(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def head(self, key: str) -> ObjectInfo | None:
        return self.inner.head(key)

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        self.fault("get", key, False)
        return self.inner.get(key, start=start, end=end, if_match=if_match)

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        return self.inner.open(key, if_match=if_match)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        self.fault("put", key, False)
        info = self.inner.put(key, data, if_none_match=if_none_match, if_match=if_match)
        self.fault("put", key, True)
        return info

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        self.fault("put", key, False)
        info = self.inner.put_from(key, size, read, if_none_match=if_none_match, if_match=if_match)
        self.fault("put", key, True)
        return info

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        return self.inner.unfinished(prefix)

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        self.inner.discard(unfinished)

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        self.fault("put", key, False)
        info = self.inner.put_file(key, path, if_none_match=if_none_match, if_match=if_match)
        self.fault("put", key, True)
        return info

    def delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        for key in keys:
            self.fault("delete", key, False)
        self.inner.delete(keys)
        for key in keys:
            self.fault("delete", key, True)

    def uri(self, key: str) -> str:
        return self.inner.uri(key)


def faulty(out: Location, fault: Callable[[str, str, bool], None]) -> Location:
    """The same place behind a FaultyStore."""
    return Location(FaultyStore(out.store, fault), out.prefix)
