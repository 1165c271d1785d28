"""Hidden tokens are guessed from all others; only their positions go through the head and the softmax."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, in_full_precision


def masked_token(model: Any, batch: MicroBatch) -> Losses:
    """One loss for each hidden token; labels are [rows, tokens], IGNORE where a token is not hidden. `outputs` counts
    those that were guessed right, [rows].
    """
    hidden = batch.labels != IGNORE
    targets, rows = batch.labels[hidden], hidden.nonzero()[:, 0]
    logits = in_full_precision(logits_at(model, batch.inputs, hidden))
    losses = F.cross_entropy(logits, targets, reduction="none")
    right = (logits.detach().argmax(-1) == targets).to(losses.dtype)
    nothing = losses.new_zeros(len(hidden))
    return Losses(nothing.index_add(0, rows, losses), hidden.sum(1), nothing.index_add(0, rows, right))


def logits_at(model: Any, inputs: dict[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
    """The logits at these places ([rows, tokens], True where wanted), one after the other: [places, vocabulary].

    The head is given the states at these places alone, as one row: it takes each by itself, and a projection on a
    vocabulary of the rest would cost more than some models' layers do.
    """
    states = _body(model).register_forward_hook(lambda module, given, output: _at(output, places))
    try:
        logits = model(**inputs).logits
    finally:
        states.remove()
    assert logits.shape[:2] == (1, int(places.sum())), "the head takes each position by itself"
    return logits[0]


def _body(model: Any) -> Any:
    """The model below its head, under what distribution and adapters wrap around it."""
    inner = getattr(model, "module", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return getattr(inner, inner.base_model_prefix)


def _at(output: Any, places: torch.Tensor) -> Any:
    """The body's output with the states at the places in the place of all."""
    if isinstance(output, tuple):
        return (output[0][places][None], *output[1:])
    output.last_hidden_state = output.last_hidden_state[places][None]
    return output
