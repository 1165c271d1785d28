"""Chunks come back as they were written, to the bit; what is torn, foreign or none of ours is not read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from finetune_trainer.batches.example import ClassExample
from finetune_trainer.batches.tagged import TaggedExample, TaggedRow
from finetune_trainer.trunk.chunk_file import ChunkFile, DamagedChunk, write_chunk
from finetune_trainer.trunk.kept_example import KeptExample
from finetune_trainer.trunk.kept_rows import KeptRows, rows_of_chunk


def rows(dtype: torch.dtype = torch.float32) -> list[list[KeptExample]]:
    """One example, none, and two that share what they know of their row."""
    row = TaggedRow(units=4, parts=2)
    rest = [
        ClassExample([5, 6], None, 2, label=1),
        TaggedExample([5, 6, 7], [0, 0, 1], 3, [-100, 1, 2], row, 0),
        TaggedExample([8], None, 1, [3], row, 2),
    ]
    draw = torch.Generator().manual_seed(0)
    made = [
        KeptExample(each, (torch.randn(each.length, 4, generator=draw).to(dtype), None), True, each.length)
        for each in rest
    ]
    return [[made[0]], [], made[1:]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_was_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path, written = tmp_path / "a.chunk", rows(dtype)
    size = write_chunk(path, "key", written)
    assert path.stat().st_size == size
    assert [p.name for p in tmp_path.iterdir()] == ["a.chunk"]
    chunk = ChunkFile(path, "key", check=True)
    path.unlink()
    for number, row in enumerate(written):
        found = chunk.examples(number)
        assert len(found) == len(row)
        for ours, theirs in zip(found, row, strict=True):
            assert ours.states[1] is None
            assert torch.equal(ours.states[0].view(torch.uint8), theirs.states[0].view(torch.uint8))
            assert ours.rest.inputs(8, 0) == theirs.rest.inputs(8, 0)
            assert ours.rest.labels(8) == theirs.rest.labels(8)
            assert (ours.tokens, ours.padded) == (theirs.tokens, theirs.padded)
    one, other = chunk.examples(2)
    assert one.rest.row is other.rest.row, "what a row's windows share, they share again"


def test_a_chunk_without_any_example_is_read(tmp_path: Path) -> None:
    write_chunk(tmp_path / "a.chunk", "key", [[], []])
    assert ChunkFile(tmp_path / "a.chunk", "key", check=True).examples(1) == []


def test_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.chunk"
    write_chunk(path, "key", rows())
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-100] ^= 1
    for bad in (good[:-1], good + b"\0", good[: len(good) // 2], good[:30], b"", bytes(flipped), b"null\n", b"{}\n"):
        path.write_bytes(bad)
        with pytest.raises(DamagedChunk):
            ChunkFile(path, "key", check=True)
    path.write_bytes(good)
    with pytest.raises(DamagedChunk, match="another run"):
        ChunkFile(path, "other")
    path.unlink()
    with pytest.raises(DamagedChunk):
        ChunkFile(path, "key")


def test_nothing_but_examples_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "dumps", lambda value, protocol: _dumps(Path("/"), protocol=protocol))
    write_chunk(tmp_path / "a.chunk", "key", rows())
    with pytest.raises(DamagedChunk, match="pathlib"):
        ChunkFile(tmp_path / "a.chunk", "key", check=True).examples(0)


_dumps = pickle.dumps


def test_a_chunk_of_other_rows_is_not_taken(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path, "train", "key", rows=3, rows_of_chunk=3)
    assert kept.chunks == 1
    assert kept.lacks(0)
    kept.write(0, rows())
    assert not kept.lacks(0)
    assert KeptRows(tmp_path, "train", "key", rows=4, rows_of_chunk=3).lacks(0)
    assert KeptRows(tmp_path, "train", "another", rows=3, rows_of_chunk=3).lacks(0)


def test_long_rows_make_smaller_chunks() -> None:
    assert [rows_of_chunk(n) for n in (1, 64, 128, 512, 8192)] == [256, 256, 256, 64, 16]
