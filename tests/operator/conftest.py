"""Fixtures of the operator's tests: a fake API server, and an operator's parts wired to it without Kopf."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fakecluster.api import FakeApi


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi().running() as running:
        yield running
