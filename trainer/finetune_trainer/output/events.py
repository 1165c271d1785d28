"""Everything that happened, step by step: events.jsonl and TensorBoard come of it.

The log lives in the checkpoint as one blob of zstd frames, a frame for each checkpoint: a resumed run has exactly the
events up to its step, so no step appears twice (I3), and saving costs only what is new.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any, Self

import zstandard


class EventLog:
    """Events in order; each has kind, step, time (seconds since the epoch) and values."""

    def __init__(self) -> None:
        self._frames = b""
        self._new: list[str] = []

    def add(self, kind: str, step: int, **values: Any) -> None:
        """Add an event; kinds "step" and "evaluation" are drawn as curves. A number that is not finite becomes null."""
        event = {"kind": kind, "step": step, "time": round(time.time(), 3), **{k: _plain(v) for k, v in values.items()}}
        self._new.append(json.dumps(event, separators=(",", ":")) + "\n")

    def blob(self) -> bytes:
        """All events so far, for Snapshot.blobs."""
        if self._new:
            self._frames += zstandard.ZstdCompressor(level=3).compress("".join(self._new).encode())
            self._new = []
        return self._frames

    @classmethod
    def restore(cls, blob: bytes) -> Self:
        """Go on from a checkpoint's events."""
        log = cls()
        log._frames = blob
        return log

    def lines(self) -> Iterator[str]:
        """The lines of events.jsonl."""
        reader = zstandard.ZstdDecompressor().stream_reader(self._frames, read_across_frames=True)
        rest = b""
        while data := reader.read(1 << 16):
            *whole, rest = (rest + data).split(b"\n")
            yield from (line.decode() + "\n" for line in whole)
        assert not rest
        yield from self._new

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The events."""
        return (json.loads(line) for line in self.lines())


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
