"""Tiny models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.launch import fork_server
from support.models import tiny_bert, tiny_llama

__all__ = ["fork_server"]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT."""
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))
