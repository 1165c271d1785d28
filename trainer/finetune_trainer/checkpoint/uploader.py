"""One background thread that commits snapshots in order, with at most one waiting: memory stays bounded, the loop goes on.

The thread is a daemon: a process that must die does not wait for it, and a torn upload does not exist (I5).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from finetune_api.exits import JobError, Reason

log = logging.getLogger(__name__)

PATIENCE = 3
"""So many saves in a row may fail because the storage is away before the run does."""


class Uploader:
    """Runs `submit`ted functions one after the other."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=1)
        self._failures = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Queue the work; blocks only while another waits already. Raises what earlier work failed with."""
        self.check()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._queue.put(work)

    def drain(self) -> None:
        """Wait for all work. Raises what any failed with; a storage that is away is then an error at once."""
        self._queue.join()
        self.check(patient=False)

    def check(self, *, patient: bool = True) -> None:
        """Raise what earlier work failed with, once; outages of the storage only after PATIENCE of them in a row."""
        error = self._error
        outage = isinstance(error, JobError) and error.reason is Reason.STORAGE_UNAVAILABLE
        if error is not None and not (outage and patient and self._failures < PATIENCE):
            self._error = None
            raise error

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            try:
                work()
                self._failures, self._error = 0, None
            except BaseException as error:
                self._failures += 1
                self._error = error
                log.warning("a checkpoint could not be saved: %s", error)
            finally:
                self._queue.task_done()
