"""SIGTERM and SIGINT: the launcher passes them on; a worker raises a flag, and leaves by itself after a checkpoint."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

from finetune_api.exits import JobError, Reason

HANDLED = (signal.SIGTERM, signal.SIGINT)


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

        for number in HANDLED:
            signal.signal(number, handle)
        return self


class LauncherSignals:
    """Before the workers run, a signal ends the launcher at once; afterwards `at` and `number` say which came when."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.number: int = signal.SIGTERM
        self.running = False
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in HANDLED:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.at is None:
            self.at, self.number = time.monotonic(), number
        os.write(self._woken, b".")
        if not self.running:
            raise JobError(Reason.INTERRUPTED, "the run was told to stop before the first step")

    @property
    def fileno(self) -> int:
        """Readable once a signal came."""
        return self._wake
