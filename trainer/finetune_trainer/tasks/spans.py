"""Answers to questions, found in texts by a model; brings torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_trainer.batches.layout import micro_batches
from finetune_trainer.batches.span_example import SpanExample
from finetune_trainer.evaluate.best_answer import Best, Gathered
from finetune_trainer.objectives.answer_span import answer_span

SIZE = 16
"""Windows at once."""


def find(model: Any, windows: Sequence[SpanExample], most: int, pad_id: int, max_length: int) -> dict[int, Best]:
    """Key of each row -> its best answer, of at most `most` tokens, over all its windows.

    The model is in eval mode, and the caller in torch.inference_mode().
    """
    device, gathered = next(model.parameters()).device, Gathered(most)
    found: dict[int, Best] = {}
    for batch in micro_batches(windows, SIZE, pad_id, max_length):
        batch = batch.to(device)
        for asked, best in gathered.add(answer_span(model, batch), batch):
            found[asked.key] = best
    return found
