"""Fixtures that every test folder may use; all others live beside their tests."""

import asyncio

from support.control_plane import control_plane

__all__ = ["control_plane"]


def pytest_sessionstart() -> None:
    """Say that there is no event loop: else looptime's plugin makes one in the first plain test, and nobody closes
    it.
    """
    asyncio.set_event_loop(None)
