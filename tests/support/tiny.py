"""Fixtures: tiny models, made once a session; a room's conftest takes those that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.models import tiny_bert, tiny_llama


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT."""
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))
