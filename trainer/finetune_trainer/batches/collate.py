"""Examples to tensors: all padded to the longest of them, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from finetune_trainer.batches.example import Example
from finetune_trainer.batches.micro_batch import MicroBatch

PAD_MULTIPLE = 8
"""Lengths are padded to a multiple of this (where the maximum allows): fewer shapes for the kernels to set up."""


def collate(examples: Sequence[Example], pad_id: int, max_length: int) -> MicroBatch:
    """One micro-batch of all of them; they are of one task, so the first has what all have."""
    width = padded_width(max(example.length for example in examples), max_length)
    rows = [example.inputs(width, pad_id) for example in examples]
    inputs = {name: _tensor([row[name] for row in rows]) for name in rows[0]}
    labels = _tensor([example.labels(width) for example in examples])
    tokens, told = sum(example.tokens for example in examples), tuple(example.told for example in examples)
    return MicroBatch(inputs, labels, len(examples), tokens, told)


def _tensor(values: list[Any]) -> torch.Tensor:
    """One tensor of numbers, of lists of them, of arrays, or of tensors."""
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return torch.from_numpy(np.stack(values)) if isinstance(values[0], np.ndarray) else torch.tensor(values)


def padded_width(longest: int, max_length: int) -> int:
    """The width that rows of at most this length are padded to."""
    return min(max_length, -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE) if max_length >= longest else longest
