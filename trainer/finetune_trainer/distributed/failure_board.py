"""One rank's failure is reported to all, through the store that they share: every rank ends with the root cause.

The first problem that is reported stands. Ranks look for it while they wait for each other, so that nobody waits for
one that has failed and will never come; a rank that only lost a peer, or was told to stop while it waited, takes the
cause for its own end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from typing import Any

from finetune_api.exits import Reason
from finetune_api.report import Problem

log = logging.getLogger(__name__)

CAUSE, STOP, GONE = "failure/cause", "failure/stop", "failure/gone"
"""Keys: what went wrong; that a rank was told to stop, which is no fault; how many ranks know of the end."""
POLL_SECONDS = 0.25
LISTEN_SECONDS = 3.0
"""A rank that lost a peer waits so long for the peer's report."""
REPORT_SECONDS = LISTEN_SECONDS + 3.0
LINGER_SECONDS = 5.0
"""The rank that holds the store stays so long after a failure, until the others have read it."""
_CONSEQUENCES = (Reason.PEER_LOST, Reason.INTERRUPTED)


class FailureBoard:
    """Where the ranks of a group report what ends them. `store`: a c10d store that all of them reach."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size
        self.cause: Problem | None = None
        self._reported = False
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="failure board", daemon=True).start()

    def report(self, problem: Problem) -> Problem:
        """Tell the others why this rank ends. The problem that it ends with: the root cause's, where another was first.

        A store whose node has lost its power is silent for ever: it is not waited for longer than REPORT_SECONDS.
        """
        found: list[Problem] = []
        thread = threading.Thread(
            target=lambda: found.append(self._report(problem)), name="failure report", daemon=True
        )
        thread.start()
        thread.join(REPORT_SECONDS)
        return found[0] if found else self.cause or problem

    def _report(self, problem: Problem) -> Problem:
        if problem.reason not in _CONSEQUENCES:
            found = self._put(CAUSE, problem)
        elif problem.reason is Reason.INTERRUPTED:
            found = self._listen(0.0)  # a launcher stops the ranks that are left when one has failed
            if found is None:
                self._put(STOP, problem)
        else:
            found = self._listen(LISTEN_SECONDS)
        if not self._reported:
            self._reported = True
            with contextlib.suppress(Exception):
                self._store.add(GONE, 1)
        return found or problem

    def linger(self) -> None:
        """Rank 0 holds the store: it stays for a moment, until the others have read it."""
        self._over.set()
        deadline = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(Exception):
            while self._rank == 0 and int(self._store.add(GONE, 0)) < self._size and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)

    def _listen(self, seconds: float) -> Problem | None:
        """What a peer has reported, or reports in the next seconds: a cause, else that it was told to stop."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self._read(CAUSE) or self._read(STOP)
            except Exception:  # the store went away with its rank
                return self.cause
            if found is not None or time.monotonic() >= deadline:
                return found
            time.sleep(POLL_SECONDS)

    def _put(self, key: str, problem: Problem) -> Problem | None:
        try:
            first = self._store.compare_set(key, "", json.dumps(problem.to_json()))
            return Problem.model_validate_json(first)
        except Exception as error:  # the store went away with its rank: nobody is left to read it
            log.info("the other ranks could not be told: %s", type(error).__name__)
            return self.cause if key == CAUSE else None

    def _read(self, key: str) -> Problem | None:
        return Problem.model_validate_json(self._store.get(key)) if self._store.check([key]) else None

    def _watch(self) -> None:
        with contextlib.suppress(Exception):  # the store went away: the next collective fails
            while not self._over.wait(POLL_SECONDS):
                self.cause = self._read(CAUSE)
                if self.cause is not None:
                    return
