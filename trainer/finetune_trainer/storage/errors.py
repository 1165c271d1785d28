"""Failures of storage in the user's words: which object, why, what to do (I9); no secret (I7)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_api.exits import JobError, Reason


@contextmanager
def blaming(field: str) -> Iterator[None]:
    """Name the manifest's field in any JobError that does not name one yet."""
    try:
        yield
    except JobError as error:
        error.field = error.field or field
        raise


def changed(uri: str) -> JobError:
    """The object is not the one that the manifest describes."""
    return JobError(Reason.DATA_CHANGED, f"{uri} changed after it was listed")


def from_os_error(error: OSError, uri: str) -> JobError:
    """The JobError that a local file system's error means."""
    why = (error.strerror or type(error).__name__).lower()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return JobError(
            Reason.ACCESS_DENIED, f"{uri}: {why}", hint="Check the owner and mode of the file and its folders."
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobError(Reason.DISK_FULL, f"{uri}: {why}", hint="Free space on this file system.")
    return JobError(Reason.STORAGE_UNAVAILABLE, f"{uri}: {why}", hint="Check the file system.")
