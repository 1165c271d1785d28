"""A disk that is full has as many names as libraries write files; whichever says it, the folder is named."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from finetune_api.exits import JobError, Reason

_WORDS = re.compile(
    r"no space left on device|os error 28|errno 28|disk quota exceeded|os error 122|errno 122"
    r"|(database or )?disk is full|inline_container.*(unexpected pos|write failed)",
    re.IGNORECASE,
)
"""What errors without a number of the system's say: safetensors, sqlite, parquet, zstd, torch."""
NEARLY_NOTHING = 1 << 20
"""Bytes left, under which a file system counts as full."""


def is_full(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, says that no space is left."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if not isinstance(seen, JobError) and _WORDS.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full(error: BaseException, folders: Iterable[str | Path]) -> JobError:
    """DiskFull with the folder: that of the file which the error names, else the first of `folders` that is full."""
    named = getattr(error, "filename", None)
    where = Path(os.fsdecode(named)).parent if isinstance(named, str | bytes) else _fullest(folders)
    left = _left(where)
    space = f" ({left >> 10} KiB left)" if left is not None else ""
    return JobError(
        Reason.DISK_FULL,
        f"no space is left in {where}{space}",
        hint=(
            "Raise spec.workers.scratchSize; with `finetune run` free space there, or name another folder with"
            " --state-dir."
        ),
    )


def _fullest(folders: Iterable[str | Path]) -> Path:
    known = [
        (left, Path(folder))
        for folder in (*folders, tempfile.gettempdir())
        if (left := _left(Path(folder))) is not None
    ]
    first = next((path for left, path in known if left < NEARLY_NOTHING), None)
    return first or (known[0][1] if known else Path(tempfile.gettempdir()))


def _left(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
