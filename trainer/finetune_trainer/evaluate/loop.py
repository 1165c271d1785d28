"""Run the held-out rows through the model: each rank its own rows, in windows sorted by length; only sums are kept.

The ranks agree in rounds, a few seconds apart, on whether all are done or one was told to stop, so that none waits long
for another and SIGTERM is heeded in the midst. The model and all generators are left as they were found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from finetune_trainer.batches.example import Example
from finetune_trainer.batches.layout import micro_batches
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Objective

WINDOW, WINDOW_BYTES = 512, 64 << 20
"""Rows that are sorted together, at most; bounds memory to a few MiB of ids, or to so many bytes of larger inputs."""
ROUND_SECONDS = 2.0


class Stopped(Exception):
    """A rank was told to stop in the midst of an evaluation; every rank raises it together."""


def evaluate(
    model: Any,
    examples: Iterable[Example],
    objective: Objective,
    tally: Tally,
    ranks: Ranks,
    *,
    size: int,
    pad_id: int,
    max_length: int,
    stop: Callable[[], bool] = lambda: False,
    worst: Worst | None = None,
) -> Tally:
    """The tally over all ranks' rows, the same on every rank; `worst` keeps this rank's worst answers. Collective.

    Raises Stopped on all ranks if one is to stop.
    """
    work = _windows(examples, size, pad_id, max_length)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), ranks.autocast():
            while True:
                done = _round(model, work, objective, tally, ranks, stop, worst)
                stopping, unfinished = ranks.sum([float(stop()), float(not done)])
                if stopping:
                    raise Stopped
                if not unfinished:
                    break
    finally:
        model.train(was_training)
    tally.vector[:] = ranks.sum(tally.vector.tolist())
    return tally


def _round(
    model: Any,
    work: Iterator[MicroBatch],
    objective: Objective,
    tally: Tally,
    ranks: Ranks,
    stop: Callable[[], bool],
    worst: Worst | None,
) -> bool:
    """Work for a few seconds; whether all is done. What each micro-batch holds does not depend on the clock."""
    deadline = time.monotonic() + ROUND_SECONDS
    for batch in work:
        batch = batch.to(ranks.device)
        tally.add(objective(model, batch), batch, worst)
        if worst is not None:
            worst.forget(batch.examples)
        if time.monotonic() > deadline or stop():
            return False
    return True


def _windows(examples: Iterable[Example], size: int, pad_id: int, max_length: int) -> Iterator[MicroBatch]:
    window: list[Example] = []
    held = 0
    for example in examples:
        window.append(example)
        held += example.bytes
        if len(window) == WINDOW or held >= WINDOW_BYTES:
            yield from micro_batches(window, size, pad_id, max_length)
            window, held = [], 0
    if window:
        yield from micro_batches(window, size, pad_id, max_length)
