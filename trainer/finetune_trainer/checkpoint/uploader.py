"""One background thread that saves checkpoints in order, so that the loop never waits for storage.

At most two snapshots wait: the newest, which takes the place of an older one that storage was too slow for, and the best so
far, which only a better one replaces. What fails is told at the next submit, check or drain. Storage that is away is
tolerated for PATIENCE saves in a row; the best is then tried again, for it is what the run exports. The thread is a daemon:
a process that must die does not wait for it, and a torn upload does not exist (I5).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api.exits import JobError, Reason

log = logging.getLogger(__name__)

PATIENCE = 3
"""So many saves in a row may fail because the storage is away before the run does."""


@dataclass(frozen=True, slots=True)
class Save:
    """A snapshot to be saved: `work` does it, `dropped` hears that a newer one took its place."""

    work: Callable[[], None]
    best: bool = False
    dropped: Callable[[], None] = lambda: None


class Uploader:
    """Runs `submit`ted saves one after the other."""

    def __init__(self) -> None:
        self._waiting: list[Save] = []
        self._changed = threading.Condition()
        self._busy = False
        self._failures = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, save: Save) -> None:
        """Queue the save; never blocks. Raises what earlier ones failed with."""
        self.check()
        with self._changed:
            stale = [other for other in self._waiting if save.best or not other.best]
            self._waiting = [other for other in self._waiting if other not in stale] + [save]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        for other in stale:
            other.dropped()

    def wait(self) -> None:
        """Until nothing waits or runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._waiting)

    def drain(self) -> None:
        """Wait for all work. Raises what any failed with; a storage that is away is then an error at once."""
        self.wait()
        self.check(patient=False)

    def check(self, *, patient: bool = True) -> None:
        """Raise what earlier work failed with, once; outages of the storage only after PATIENCE of them in a row."""
        error = self._error
        if error is not None and not (_outage(error) and patient and self._failures < PATIENCE):
            self._error = None
            raise error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                save = self._waiting.pop(0)
                self._busy = True
            again = False
            try:
                save.work()
                self._failures, self._error = 0, None
            except BaseException as error:
                self._failures += 1
                self._error = error
                again = save.best and _outage(error) and self._failures < PATIENCE
                log.warning("a checkpoint could not be saved%s: %s", ", and is tried again" if again else "", error)
            with self._changed:
                if again and not any(other.best for other in self._waiting):
                    self._waiting.insert(0, save)
                self._busy = False
                self._changed.notify_all()


def _outage(error: BaseException | None) -> bool:
    return isinstance(error, JobError) and error.reason is Reason.STORAGE_UNAVAILABLE
