"""One background thread that saves checkpoints in order, so that the loop never waits for storage.

One snapshot is in flight and one waits: the newest, or the best so far, which only a better one replaces (it is what
the run exports). A snapshot for which there is no place is not taken at all, and made up for at the next step: which
steps were saved never changes what is computed (I3), only from where a killed run goes on.

A save that fails because the storage is away is tried again until a newer one waits; PATIENCE_SECONDS after the first
such failure the run is told, at the next check or drain. All other failures are told at once. The thread is a daemon: a
process that must die does not wait for it, and a torn upload does not exist (I5).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api.exits import JobError, Reason

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""The storage may be away for so long, counted from the first failure, before the run ends."""
PAUSE_SECONDS = 5.0
"""Between two tries of a save; each request of a try has retries of its own."""
AWAY = (Reason.STORAGE_UNAVAILABLE, Reason.CREDENTIALS_EXPIRED)


@dataclass(frozen=True, slots=True)
class Save:
    """A snapshot to be saved: `work` does it, `dropped` hears that a newer one took its place."""

    work: Callable[[], None]
    best: bool = False
    dropped: Callable[[], None] = lambda: None


class Uploader:
    """Runs `submit`ted saves one after the other. One thread submits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._flying: Save | None = None
        self._waiting: Save | None = None
        self._failing_since: float | None = None
        self._error: BaseException | None = None
        self._draining = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a snapshot is in flight or waits."""
        with self._changed:
            return self._flying is not None or self._waiting is not None

    @property
    def waits(self) -> bool:
        """Whether a snapshot waits."""
        with self._changed:
            return self._waiting is not None

    def has_place(self, *, best: bool = False) -> bool:
        """Whether a new snapshot would be taken."""
        with self._changed:
            return self._waiting is None or best or not self._waiting.best

    def make_place(self) -> None:
        """Drop a snapshot that waits, before the one that replaces it is made: there are never three."""
        with self._changed:
            old, self._waiting = self._waiting, None
        if old is not None:
            old.dropped()

    def submit(self, save: Save) -> None:
        """Queue the save, for which there is a place."""
        with self._changed:
            assert self._waiting is None, "make_place first"
            self._waiting = save
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self) -> None:
        """Until nothing waits or runs."""
        with self._changed:
            self._changed.wait_for(lambda: self._flying is None and self._waiting is None)

    def drain(self) -> None:
        """Wait for all work. Raises what any failed with; a storage that is away is then an error at once."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        try:
            self.wait()
        finally:
            self._draining = False
        self.check()

    def try_once(self) -> bool:
        """Wait for all work, which is tried once.

        Whether it was done; a storage that is away is an error after PATIENCE_SECONDS only.
        """
        try:
            self.drain()
        except JobError as error:
            if error.reason not in AWAY or self._lost_patience():
                raise
            return False
        return True

    def check(self) -> None:
        """Raise, once, what a save was given up for."""
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _lost_patience(self) -> bool:
        return self._failing_since is not None and time.monotonic() - self._failing_since >= PATIENCE_SECONDS

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._flying is not None)
                if self._flying is None:
                    self._flying, self._waiting = self._waiting, None
                save = self._flying
            assert save is not None
            try:
                save.work()
                error = None
            except BaseException as caught:
                error = caught
            self._ended(save, error)
            del save, error  # the snapshot, and the frames that hold it

    def _ended(self, save: Save, error: BaseException | None) -> None:
        """Note how a try ended; wait a little where it is made again."""
        with self._changed:
            if error is None:
                self._failing_since = None
            elif self._failing_since is None:
                self._failing_since = time.monotonic()
            again = error is not None and _away(error) and not self._draining and not self._lost_patience()
            if error is not None:
                log.warning("a checkpoint could not be saved%s: %s", ", and is tried again" if again else "", error)
            if again:
                self._changed.wait_for(lambda: self._draining or self._replaced(save), PAUSE_SECONDS)
            else:
                self._error = error or self._error
            if not again or self._replaced(save):
                self._flying = None
            self._changed.notify_all()

    def _replaced(self, save: Save) -> bool:
        """Whether what waits makes up for a failed save."""
        return self._waiting is not None and (self._waiting.best or not save.best)


def _away(error: BaseException) -> bool:
    return isinstance(error, JobError) and error.reason in AWAY
