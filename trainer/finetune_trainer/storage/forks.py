"""What belongs to one process: nothing with a connection, a lock or a thread crosses a fork.

Two processes on one connection read each other's answers, other bytes without an error; a lock that another thread held
is
never released in the child; a pool's threads do not exist there. So what a module keeps of that kind it keeps in an
`Own`,
made anew in every child. The parent's value is kept there, but never touched again: even to close it may wait for a
lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_all: list[Own[Any]] = []
_of_parents: list[Any] = []
"""Kept, so that no finalizer runs in the child."""


class Own(Generic[T]):
    """A value of this process: `own()` is the one that `make` made here, never the parent's.

    `rest` is called in the parent before each fork, to let go of what is not in use: what is closed is not inherited.
    """

    def __init__(self, make: Callable[[], T], rest: Callable[[T], None] = lambda value: None) -> None:
        self._make, self._rest = make, rest
        self._value = make()
        _all.append(self)

    def __call__(self) -> T:
        return self._value

    def _before(self) -> None:
        self._rest(self._value)

    def _renew(self) -> None:
        _of_parents.append(self._value)
        self._value = self._make()


def _before() -> None:
    for own in _all:
        own._before()


def _in_child() -> None:
    for own in _all:
        own._renew()


os.register_at_fork(before=_before, after_in_child=_in_child)
