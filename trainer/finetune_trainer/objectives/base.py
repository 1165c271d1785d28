"""What an objective is: a function of a model and a micro-batch that makes the forward pass and gives sums of losses.

It owns the forward pass, so that one that computes its softmax in chunks, or asks a second model, has its place. It
gives SUMS and counts, never means: the step divides once, by the count of the whole batch (I1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.batches.micro_batch import MicroBatch


@dataclass(frozen=True, slots=True)
class Losses:
    """What a micro-batch came to, row by row.

    `sums` and `counts` are [rows]: each row's sum of losses, and how many they are. `outputs` is what an evaluation
    looks at beside them (scores of classes, say); None where that is too large to be kept.
    """

    sums: torch.Tensor
    counts: torch.Tensor
    outputs: torch.Tensor | None = None

    @property
    def total(self) -> torch.Tensor:
        """The sum over the micro-batch, a scalar to be differentiated."""
        return self.sums.sum()


Objective = Callable[[Any, MicroBatch], Losses]


def in_full_precision(logits: torch.Tensor) -> torch.Tensor:
    """Logits as a softmax takes them: float32 or better."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
