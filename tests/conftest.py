"""Fixtures that every test folder may use; all others live beside their tests."""

import asyncio

from support.control_plane import control_plane

__all__ = ["control_plane"]


def pytest_sessionstart() -> None:
    """Say that there is no event loop: else looptime's plugin makes one in the first plain test, and nobody closes
    it.
    """
    asyncio.set_event_loop(None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case of bytes by its argument: bytes in a test's name are unreadable, and compressed ones hold the time
    of day, by which the processes that share a run would collect different tests.
    """
    return argname if isinstance(val, bytes) else None
