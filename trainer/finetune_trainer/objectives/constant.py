"""A model that gives the same answer to every row: what a tuned one has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from finetune_trainer.objectives.base import Objective


def constantly(objective: Objective, outputs: Sequence[float], *, tokens: bool) -> Objective:
    """The objective of a model that is not there: its logits are `outputs` for each row, or for each of its `tokens`.

    A model of starts and ends has the one output at each token for both.
    """

    def model(**inputs: torch.Tensor) -> Any:
        shape = next(iter(inputs.values())).shape[: 2 if tokens else 1]
        device = next(iter(inputs.values())).device
        logits = torch.tensor(outputs, dtype=torch.float32, device=device).expand(*shape, len(outputs))
        return SimpleNamespace(logits=logits, start_logits=logits[..., 0], end_logits=logits[..., 0])

    return lambda _, batch: objective(model, batch)
