"""Values of one process: nothing with a connection, a lock or a thread crosses a fork.

Two processes on one connection read each other's answers: wrong bytes, and no error. A lock that another thread held is
never released in the child, and a pool's threads do not exist there. So a module keeps such values in a `ProcessLocal`,
which makes them anew in every child. The parent's value is kept alive there but never touched: even closing it may wait
for a lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_all: list[ProcessLocal[Any]] = []
_of_parents: list[Any] = []
"""Kept, so that no finalizer runs in the child."""


class ProcessLocal(Generic[T]):
    """A value of this process: `local()` is the one that `make` made here, never the parent's.

    `before_fork` is called in the parent before each fork, to let go of what is not in use: what is closed is not
    inherited.
    """

    def __init__(self, make: Callable[[], T], before_fork: Callable[[T], None] = lambda value: None) -> None:
        self._make, self._before_fork = make, before_fork
        self._value = make()
        _all.append(self)

    def __call__(self) -> T:
        return self._value

    def release(self) -> None:
        """Let go of what is not in use; called in the parent before a fork."""
        self._before_fork(self._value)

    def renew(self) -> None:
        """Make this process's own value; called in the child after a fork."""
        _of_parents.append(self._value)
        self._value = self._make()


def _before_fork() -> None:
    for local in _all:
        local.release()


def _in_child() -> None:
    for local in _all:
        local.renew()


os.register_at_fork(before=_before_fork, after_in_child=_in_child)
