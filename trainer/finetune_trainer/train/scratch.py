"""Folders in the scratch space of this attempt."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.run import RunConfig


@contextmanager
def scratch_folder(config: RunConfig, name: str) -> Iterator[Path]:
    """An empty folder, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=config.scratch))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
