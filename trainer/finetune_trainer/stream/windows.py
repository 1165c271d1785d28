"""Windows of the order in memory: the next one is read in the background while one is in use.

At most two are held, and only one where one holds everything; both are bounded in bytes, however large the blocks are.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from finetune_trainer.stream.order import Window
from finetune_trainer.stream.split_reader import Span, SplitReader

READERS = 4

Content = tuple[tuple[int, ...], tuple[Span, ...]]
"""What a window holds, wherever it comes in an epoch: blocks, and the span of each."""


@dataclass(frozen=True, slots=True)
class LoadedWindow:
    """A window's rows by position, and the split's row number of each; no rows where only the numbers are wanted."""

    rows: list[bytes]
    numbers: np.ndarray


class WindowLoader:
    """Loads windows of a split, and holds those that were asked for until they are released."""

    def __init__(self, reader: SplitReader, unread: bool = False) -> None:
        """`unread`: only the numbers of the rows are wanted."""
        self._reader, self._unread = reader, unread
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="stream")
        self._background = ThreadPoolExecutor(1, thread_name_prefix="stream-window")
        self._held: dict[Content, Future[LoadedWindow]] = {}

    def load(self, window: Window) -> Future[LoadedWindow]:
        """The window, being read in the background if it is not held yet."""
        content = _content(window)
        if content not in self._held:
            self._held[content] = self._background.submit(self.read, content)
        return self._held[content]

    def release_all_but(self, *kept: Window) -> None:
        """Let go of the other windows."""
        for content in set(self._held) - {_content(window) for window in kept}:
            del self._held[content]

    def read(self, content: Content) -> LoadedWindow:
        """Read now; the blocks in parallel."""
        blocks, spans = content
        rows: list[bytes] = []
        numbers: list[np.ndarray] = []
        self._reader.release_all_but(blocks)
        found: Iterable[list[bytes]] = ([] for _ in blocks)
        if not self._unread:
            found = self._readers.map(self._reader.read, blocks, spans)
        for n, (low, high), loaded in zip(blocks, spans, found, strict=True):
            first = self._reader.blocks[n].first
            rows.extend(loaded)
            numbers.append(np.arange(first + low, first + high, dtype=np.int64))
        return LoadedWindow(rows, np.concatenate(numbers))

    def close(self) -> None:
        """Stop reading ahead; what is being read is not waited for."""
        self._background.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._held.clear()


def _content(window: Window) -> Content:
    return window.blocks, window.spans
