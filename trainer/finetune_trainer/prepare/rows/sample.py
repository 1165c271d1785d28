"""A sample of a source's rows, for what costs too much to do with all of them."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Any

SEED = 20_250_101  # fixed: the estimates do not depend on the job's seed
SAMPLE_ROWS = 2_000
SAMPLE_BYTES = 12 << 20
LEAST_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class SampledRow:
    """A row of the sample and where it stands."""

    values: dict[str, Any]
    file: str
    line: int


class Sample:
    """A uniform sample without replacement, bounded in rows and bytes: the rows with the smallest random keys."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)
        self._heap: list[tuple[float, int, int, SampledRow]] = []
        self._limit = 1.0
        self._bytes = self._count = 0

    def offer(self, values: dict[str, Any], size: int, file: str, line: int) -> None:
        """Maybe keep the row."""
        key = self._random.random()
        self._count += 1
        if key >= self._limit:
            return
        heapq.heappush(self._heap, (-key, self._count, size, SampledRow(values, file, line)))
        self._bytes += size
        while len(self._heap) > SAMPLE_ROWS or (self._bytes > SAMPLE_BYTES and len(self._heap) > LEAST_SAMPLE):
            key, _, size, _ = heapq.heappop(self._heap)
            self._limit = -key
            self._bytes -= size

    @property
    def rows(self) -> list[SampledRow]:
        """The sample, in the order of the data."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[1])]
