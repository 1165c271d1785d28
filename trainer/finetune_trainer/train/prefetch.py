"""The rows of each step, encoded and cut into micro-batches one step ahead, in a thread beside the training.

The cursor travels with its batch: what was read ahead and not trained is read again after a resume (I2, I4).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from finetune_trainer.batches.rank_batch import RankBatch, lay_out
from finetune_trainer.stream import Batch, Cursor
from finetune_trainer.train.comparison import Comparison
from finetune_trainer.train.data import TrainingData
from finetune_trainer.train.progress import TrainingProgress

AHEAD = 2
"""Steps that wait ready."""

Item = tuple[RankBatch, int, Cursor]


def rank_batches(
    data: TrainingData, split: str, cursor: Cursor, progress: TrainingProgress, comparison: Comparison | None = None
) -> Iterator[Item]:
    """This rank's part of each global batch of the split from the cursor on, the rows of the whole batch, and the
    cursor after it.

    `comparison`: where rows are learned from by comparing them. Endless.
    """
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(AHEAD)
    leave = threading.Event()

    def offer(item: Item | BaseException | None) -> bool:
        while not leave.is_set():
            try:
                ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            with data.stream(split, unread=split in data.kept) as stream:
                for batch, after in stream.batches(cursor):
                    if not offer((rank_batch(data, split, batch, comparison), batch.size, after)):
                        return
            offer(None)
        except BaseException as error:
            offer(error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            with progress.clock("data"):
                item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        leave.set()
        thread.join(10.0)


def rank_batch(data: TrainingData, split: str, batch: Batch, comparison: Comparison | None = None) -> RankBatch:
    """Encode this rank's rows of the split, or take what was kept of them, and lay them out."""
    numbers, kept = batch.indices[data.rank :: data.size], data.kept.get(split)
    if comparison is not None:
        return comparison.rank_batch(numbers, batch.epoch)
    if kept is not None:
        rows = list(map(kept.examples, numbers))
    else:
        rows = list(data.encoded(zip(numbers, batch.rows, strict=True), batch.epoch))
    return lay_out(rows, data.micro_batch_size, data.tokenizer.pad_id, data.max_length)
