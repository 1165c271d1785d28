"""From examples to tensors: sorted by length, cut into micro-batches, padded to the longest of each; and the loss of
one.

The loss is the SUM over what is learned, never a mean: the loop divides once by the global count (I1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.tasks.base import IGNORE, Example

PAD_MULTIPLE = 8
"""Lengths are padded to a multiple of this (where the maximum allows): fewer shapes for the kernels to set up."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of a few rows.

    `inputs` go to the model as keywords; `labels` is [rows] or [rows, tokens]; `tokens` counts real ones.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: int
    tokens: int

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        moved = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return MicroBatch(moved, self.labels.to(device, non_blocking=True), self.rows, self.tokens)


def micro_batches(examples: Sequence[Example], size: int, pad_id: int, max_length: int) -> Iterator[MicroBatch]:
    """At most `size` rows each, longest first (so that memory fails early, if at all); equal lengths keep their
    order.
    """
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))
    for start in range(0, len(order), size):
        yield collate([examples[i] for i in order[start : start + size]], pad_id, max_length)


def collate(examples: Sequence[Example], pad_id: int, max_length: int) -> MicroBatch:
    """Pad on the right.

    Masks and labels go by position, so a pad token that is also the EOS is still learned where it ends a text.
    """
    longest = max(len(e.input_ids) for e in examples)
    width = min(max_length, -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE) if max_length >= longest else longest
    ids = torch.full((len(examples), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    per_token = isinstance(examples[0].labels, list)
    labels = torch.full((len(examples), width) if per_token else (len(examples),), IGNORE, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.tensor(example.input_ids)
        mask[row, :length] = 1
        if per_token:
            labels[row, :length] = torch.tensor(example.labels)
        else:
            labels[row] = example.labels
    inputs = {"input_ids": ids, "attention_mask": mask}
    if examples[0].type_ids is not None:
        types = torch.zeros((len(examples), width), dtype=torch.long)
        for row, example in enumerate(examples):
            types[row, : len(example.input_ids)] = torch.tensor(example.type_ids)
        inputs["token_type_ids"] = types
    return MicroBatch(inputs, labels, len(examples), sum(len(e.input_ids) for e in examples))


def forward(model: Any, batch: MicroBatch) -> torch.Tensor:
    """The model's logits."""
    return model(**batch.inputs).logits


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of losses and count of what is learned, for each row; float32 or better whatever the logits are.

    For language models position t predicts token t+1, and only learned positions go through the softmax.
    """
    if labels.dim() == 1:
        return F.cross_entropy(_wide(logits), labels, reduction="none"), torch.ones_like(labels)
    targets = labels[:, 1:]
    learned = targets != IGNORE
    losses = F.cross_entropy(_wide(logits[:, :-1][learned]), targets[learned], reduction="none")
    rows = learned.nonzero()[:, 0]
    return losses.new_zeros(labels.shape[0]).index_add(0, rows, losses), learned.sum(1)


def loss_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the micro-batch's losses, a scalar."""
    return row_losses(logits, labels)[0].sum()


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
