"""The processes of a run, connected by a key-value store: they wait for each other, share values, and report failures.

The store is there before the process group, so that a rank that cannot even take its device is heard of. No wait goes
on after a peer has failed: it ends with that peer's own problem (PeerFailed). A peer that goes away without a word ends
the wait with PeerLost.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.report import Problem
from finetune_trainer.distributed.failure_board import FailureBoard
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.distributed.waits import waiting
from finetune_trainer.failures import memory
from finetune_trainer.failures.problems import PeerFailed

POLL_SECONDS = 0.2
LEAVE_SECONDS = 15.0
RENDEZVOUS_SECONDS = 900.0
"""How long the first ranks wait for the last: pods are scheduled and pull their image at different times."""
SOURCE_LINE = re.compile(r"^\[[^\]]*\.cc:\d+\] ")
"""gloo's messages begin with a line of its source."""


class Peers:
    """This process among those of its run. A lone process has neither a store nor a failure board."""

    def __init__(
        self,
        info: RankInfo,
        store: Any = None,
        board: FailureBoard | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.rank, self.size, self.local_rank = info.rank, info.size, info.local_rank
        self.store, self._board, self._stop = store, board, stop
        self._values = 0

    @property
    def failed(self) -> bool:
        """Whether a rank has failed."""
        return self._board is not None and self._board.cause is not None

    def raise_if_failed(self) -> None:
        """Raise PeerFailed if a rank has failed."""
        if self._board is not None and self._board.cause is not None:
            raise PeerFailed(self._board.cause)

    def report_failure(self, problem: Problem) -> Problem:
        """Report to all ranks why this one ends; the problem that it ends with, which is the root cause's.

        Waits for seconds at most.
        """
        return self._board.report(problem) if self._board is not None else problem

    def linger(self) -> None:
        """The last act of a rank that failed: rank 0, which holds the store, stays until the others know why."""
        if self._board is not None:
            self._board.linger()

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes (JSON), on every rank. Collective.

        Takes as long as it takes; a signal to stop or a dead rank 0 ends the wait.
        """
        self._values += 1
        key = f"values/{self._values}"
        if self.rank == 0:
            value = make()
            if self.size > 1:
                with peer_errors():
                    self.store.set(key, json.dumps(value))
            return value
        self.wait_until(lambda: self.store.check([key]))
        with peer_errors():
            return json.loads(self.store.get(key))

    def wait_for_all(self, key: str) -> None:
        """Until all ranks have come to this key. Collective."""
        with peer_errors():
            self.store.add(key, 1)
        self.wait_until(lambda: int(self.store.add(key, 0)) >= self.size, RENDEZVOUS_SECONDS)

    def wait_until(self, ready: Callable[[], bool], seconds: float = float("inf")) -> None:
        """Poll until it is so. Raises PeerFailed, Interrupted, and PeerLost after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            self.raise_if_failed()
            with peer_errors():
                if ready():
                    return
            if self._stop():
                raise JobError(Reason.INTERRUPTED, f"rank {self.rank} was told to stop while it waited for its peers")
            if time.monotonic() > deadline:
                raise JobError(Reason.PEER_LOST, f"rank {self.rank} waited {seconds:.0f} s for its peers to start")
            time.sleep(POLL_SECONDS)

    def leave(self) -> None:
        """The end of a run that went well: rank 0, which holds the store, leaves last."""
        if self.size > 1:
            with contextlib.suppress(JobError):  # all is done: nobody is missed any more
                with peer_errors():
                    gone = int(self.store.add("gone", 1))
                if self.rank == 0 and gone < self.size:
                    self.wait_until(lambda: int(self.store.add("gone", 0)) >= self.size, LEAVE_SECONDS)


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """Around whatever needs an answer of a peer: what goes wrong in it means that a peer is gone."""
    try:
        with waiting():
            yield
    except RuntimeError as error:
        if memory.ran_out(error):
            raise
        said = SOURCE_LINE.sub("", str(error).splitlines()[0]).partition(" This is typically caused by")[0]
        raise JobError(Reason.PEER_LOST, f"another worker went away or did not answer in time: {said[:300]}") from error
