"""SIGTERM and SIGINT as a flag that the loop looks at: the process always leaves by its own door, after a
checkpoint.
"""

from __future__ import annotations

import signal
from types import FrameType


class StopFlag:
    """Set by a signal, read between micro-batches.

    Without a lock: a second signal comes while the first is being handled.
    """

    def __init__(self) -> None:
        self._set = False
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self._set

    def set(self, number: int | None = None) -> None:
        """Ask the process to stop."""
        self.signal = self.signal or number
        self._set = True

    def install(self) -> StopFlag:
        """Take over SIGTERM and SIGINT. Only from the main thread."""

        def handle(number: int, frame: FrameType | None) -> None:
            self.set(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
        return self
