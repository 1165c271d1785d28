"""The rows of a split, kept in chunks: so many rows each, in the order of their numbers, whoever made them.

What a chunk holds is a function of its key and its number alone: it is computed row by row in micro-batches of its own,
laid out by length, whatever the rank, the number of ranks and the order in which rows are learned from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import Example
from finetune_trainer.batches.layout import by_length
from finetune_trainer.trunk.chunk_file import ChunkFile, DamagedChunk, Rows, write_chunk
from finetune_trainer.trunk.cut import Cut
from finetune_trainer.trunk.kept_example import KeptExample
from finetune_trainer.trunk.trial import Keeping

VERSION = 1
"""Of what chunks hold and how they are computed: change it with anything here."""
ROWS, POSITIONS = 256, 1 << 15
"""Most rows of a chunk, and positions that it may come to where all its rows are as long as can be."""


def rows_of_chunk(max_length: int) -> int:
    """How many rows a chunk has; the last one of a split may have fewer."""
    return max(16, min(ROWS, POSITIONS // max(1, max_length)))


def key_of(facts: Mapping[str, Any]) -> str:
    """Of all that the content of chunks depends on."""
    return hashlib.sha256(json.dumps([VERSION, facts], sort_keys=True, default=str).encode()).hexdigest()


def digest_of(model: torch.nn.Module) -> str:
    """Of all weights that are not trained, and of the buffers."""
    digest = hashlib.blake2b(digest_size=16)
    tensors = [(n, p) for n, p in model.named_parameters() if not p.requires_grad] + list(model.named_buffers())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Kept(Protocol):
    """Rows of a split that were kept."""

    @property
    def row_count(self) -> int:
        """How many there are."""

    def examples(self, number: int) -> Sequence[Example]:
        """Those of a row, by its number in the split."""


class KeptPart:
    """Some of the rows of another split, which has them under the `numbers`."""

    def __init__(self, whole: Kept, numbers: np.ndarray) -> None:
        self._whole, self._numbers = whole, numbers

    @property
    def row_count(self) -> int:
        """Of the part."""
        return len(self._numbers)

    def examples(self, number: int) -> Sequence[Example]:
        """Those of the whole's row."""
        return self._whole.examples(int(self._numbers[number]))


class KeptRows:
    """The chunks of a split, in a folder that all processes of a node see."""

    def __init__(self, folder: Path, split: str, key: str, rows: int, rows_of_chunk: int) -> None:
        self.split, self._rows, self.rows_of_chunk = split, rows, rows_of_chunk
        self.chunks = -(-rows // rows_of_chunk)
        self._folder, self._key = folder, f"{key}/{split}/{rows}/{rows_of_chunk}"
        self._open: list[ChunkFile] = []

    @property
    def row_count(self) -> int:
        """Of the split."""
        return self._rows

    def path(self, chunk: int) -> Path:
        """Where it lies."""
        return self._folder / f"{self.split}-{chunk:06}.chunk"

    def lacks(self, chunk: int) -> bool:
        """Whether it is to be made, or made again."""
        try:
            ChunkFile(self.path(chunk), f"{self._key}/{chunk}", check=True)
        except DamagedChunk:
            return True
        return False

    def write(self, chunk: int, rows: Rows) -> int:
        """Put it there; the bytes written. Raises OSError."""
        return write_chunk(self.path(chunk), f"{self._key}/{chunk}", rows)

    def open(self) -> None:
        """Map all chunks, for the rest of the run: whatever becomes of the files then. Raises DamagedChunk."""
        self._open = [ChunkFile(self.path(chunk), f"{self._key}/{chunk}") for chunk in range(self.chunks)]

    def examples(self, number: int) -> Sequence[Example]:
        """Those of a row, by its number in the split."""
        return self._open[number // self.rows_of_chunk].examples(number % self.rows_of_chunk)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.path(chunk).stat().st_size for chunk in range(self.chunks))


def computed(
    cut: Cut,
    keeping: Keeping,
    rows: Sequence[Sequence[Example]],
    *,
    size: int,
    pad_id: int,
    max_length: int,
    found: list[list[KeptExample]],
) -> Iterator[None]:
    """Fill `found` with the kept examples of each of a chunk's rows; yields behind each micro-batch.

    The model is in eval mode, without gradients. Raises CannotCut.
    """
    examples = [example for row in rows for example in row]
    kept: dict[int, KeptExample] = {}
    device = next(cut.model.parameters()).device
    for group in by_length(examples, size):
        batch = collate(group, pad_id, max_length).to(device)
        made = keeping.kept(cut.computed(batch.inputs), group, pad_id)
        kept.update(zip(map(id, group), made, strict=True))
        yield
    found.extend([kept[id(example)] for example in row] for row in rows)
