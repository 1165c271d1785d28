"""A part is written from where its tensors lie: no second copy of it is in memory, however large it is."""

from __future__ import annotations

import random

import pytest
import safetensors.torch
import torch

from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer, Snapshot, parts
from finetune_trainer.checkpoint.serialized import PIECE, Serialized
from finetune_trainer.storage import Location, ObjectInfo, Read
from finetune_trainer.storage.s3 import multipart
from support.checkpoints import same, same_bits, state, verify


def test_the_bytes_are_a_safetensors_file() -> None:
    tensors = parts.copies(state(7).tensors) | {
        "flags": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).to(torch.float16),
        "eight": torch.randn(4).to(torch.float8_e4m3fn),
    }
    found = Serialized.of_tensors(tensors)
    data = found.read(0, found.size)
    assert len(data) == found.size
    loaded = safetensors.torch.load(data)
    assert set(loaded) == set(tensors)
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())
    assert b"".join(found.pieces()) == data
    pick = random.Random(3)
    for _ in range(200):
        start, end = sorted((pick.randrange(found.size), pick.randrange(found.size)))
        assert found.read(start, end) == data[start:end]


class Measuring:
    """A store that only looks at how much it is given at once."""

    def __init__(self) -> None:
        self.most, self.total = 0, 0

    def put_from(self, key: str, size: int, read: Read, *, if_none_match: bool = False) -> ObjectInfo:
        for start in range(0, size, PIECE):
            data = read(start, min(start + PIECE, size))
            self.most, self.total = max(self.most, len(data)), self.total + len(data)
        return ObjectInfo(key, size, "")


def test_a_tensor_larger_than_a_part_is_read_piece_by_piece() -> None:
    large = Snapshot(1, {}, {"model.embedding": torch.arange(12 << 20, dtype=torch.float32)})
    store = Measuring()
    for part, data in parts.pack(large, "me", part_bytes=1 << 20):
        assert max(len(piece) for piece in data.pieces()) <= PIECE
        assert part.bytes == data.size > 48 << 20
        store.put_from(part.name, data.size, data.read)
    assert store.most <= PIECE
    assert store.total > 48 << 20


def test_parts_go_to_s3_in_pieces_and_come_back_whole(
    anywhere: tuple[Location, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "PART_BYTES", 5 << 20)  # the least that S3 allows
    out, settings = anywhere
    writer = Checkpointer(settings, out, 0)
    writer.claim()
    large = state(3)
    large.tensors["model.embedding"] = torch.randn(3 << 20)  # 12 MiB
    writer.save(large, wait=True)
    writer.close()
    assert list(out.unfinished()) == []
    reader = Checkpointer(settings, out, 0)
    resume = reader.claim().resume
    assert resume is not None
    assert same(reader.load(resume), large)
    verify(out, resume)
