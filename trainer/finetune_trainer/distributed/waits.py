"""How long a worker has waited for its peers; told to stop while one is silent, it leaves at once.

A peer on a node that lost its power says nothing: no connection ends, and a collective waits for its whole time-out.
The signal to stop cannot be heeded meanwhile, for the process waits outside Python. So a thread looks at how long the
wait has lasted. A peer that is only slow shows in the waits before: those are never cut short.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

SILENT_SECONDS = 20.0
"""A wait that is shorter than this says nothing."""
LONGER = 4.0
"""Nor does one that is not so many times longer than the longest of the waits before."""
POLL_SECONDS = 0.25

_recent: deque[float] = deque(maxlen=64)
_since: float | None = None


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Around whatever needs an answer of a peer. Main thread only; may be nested."""
    global _since
    if _since is not None:
        yield
        return
    _since = began = time.monotonic()
    try:
        yield
    finally:
        _since = None
        _recent.append(time.monotonic() - began)


def silent_for() -> float | None:
    """Seconds that a peer has not answered for, if so long that it is not only slow."""
    since = _since
    if since is None:
        return None
    waited = time.monotonic() - since
    return waited if waited > max(SILENT_SECONDS, LONGER * max(tuple(_recent), default=0.0)) else None


def watch(leave: Callable[[float], None]) -> None:
    """From a signal on, call `leave` with the seconds once a peer is silent.

    Only from the main thread, handlers installed.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # written to at once, though the handlers of Python wait

    def look() -> None:
        os.read(woken, 1)
        while (seconds := silent_for()) is None:
            time.sleep(POLL_SECONDS)
        leave(seconds)

    threading.Thread(target=look, name="waits", daemon=True).start()
