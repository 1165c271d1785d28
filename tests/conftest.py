"""Fixtures that every test folder may use; all others live beside their tests."""

from support.control_plane import control_plane

__all__ = ["control_plane"]
