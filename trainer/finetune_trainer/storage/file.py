"""The local file system as a store, for `finetune run` and tests: the same protocol and guarantees as S3.

Files appear whole (written aside, then renamed), and a conditional write is a hard link, which one writer makes.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from finetune_api.exits import JobError
from finetune_trainer.storage.base import ObjectInfo, Read, Unfinished
from finetune_trainer.storage.errors import changed, from_os_error

TEMPORARY = ".finetune-tmp-"
PIECE = 8 << 20


class FileStore:
    """Keys are absolute paths without the leading slash."""

    conditional_writes = True

    def uri(self, key: str) -> str:
        """file:///…, percent-encoded."""
        return f"file:///{quote(key, safe='/*')}"

    def name(self, key: str) -> str:
        """The file's path, which terminals make a link of."""
        return f"/{key}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Files whose path begins with `prefix`; dangling links are skipped, links to folders followed."""
        folder = f"/{prefix}".rpartition("/")[0] or "/"
        yield from sorted(self._walk(folder, f"/{prefix}"), key=lambda info: info.key)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        with _mapped(folder):
            try:
                entries = list(os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                return
        for entry in entries:
            path = f"{folder.rstrip('/')}/{entry.name}"
            if entry.name.startswith(TEMPORARY):
                continue
            if entry.is_dir():
                if f"{path}/".startswith(prefix) or prefix.startswith(f"{path}/"):
                    yield from self._walk(path, prefix)
            elif path.startswith(prefix):
                with suppress(FileNotFoundError):
                    yield _info(path[1:], os.stat(path))

    def head(self, key: str) -> ObjectInfo | None:
        """Facts of a regular file."""
        with _mapped(key):
            try:
                status = os.stat(f"/{key}")
            except (FileNotFoundError, NotADirectoryError):
                return None
        return None if os.path.isdir(f"/{key}") else _info(key, status)

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """Bytes [start, end) of the file."""
        with self.open(key, if_match=if_match) as source, _mapped(key):
            source.seek(start or 0)
            return source.read(-1 if end is None else max(0, end - (start or 0)))

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """The file, buffered; the tag is checked at opening."""
        with _mapped(key):
            try:
                source = open(f"/{key}", "rb")  # noqa: SIM115 - the caller closes it
            except (NotADirectoryError, IsADirectoryError):
                raise FileNotFoundError(f"/{key}") from None
        if if_match is not None and _info(key, os.fstat(source.fileno())).etag != if_match:
            source.close()
            raise changed(self.uri(key))
        return source

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write the bytes."""
        return self._write(key, (data,), if_none_match, if_match)

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write piece by piece."""
        pieces = (read(start, min(start + PIECE, size)) for start in range(0, size, PIECE))
        return self._write(key, pieces, if_none_match, if_match)

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Copy the file."""
        with open(path, "rb") as source:
            return self._write(key, iter(lambda: source.read(PIECE), b""), if_none_match, if_match)

    def _write(self, key: str, pieces: Iterable[bytes], if_none_match: bool, if_match: str | None) -> ObjectInfo:
        target = f"/{key}"
        folder = os.path.dirname(target)
        aside = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}"
        with _mapped(key):
            if if_none_match and os.path.exists(target):
                raise FileExistsError(target)
            try:
                with _create(aside) as sink:
                    for piece in pieces:
                        sink.write(piece)
                    sink.flush()
                    os.fsync(sink.fileno())
                if if_none_match:
                    os.link(aside, target)
                elif if_match is not None:
                    with _locked(folder):
                        if _tag(key) != if_match:
                            raise FileExistsError(target)
                        os.replace(aside, target)
                else:
                    os.replace(aside, target)
            finally:
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(aside)
            _sync_folder(folder)
            return _info(key, os.stat(target))

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Files that are being written aside, or were when their writer was killed; the key is their folder."""
        folder = f"/{prefix}".rpartition("/")[0] or "/"
        for where, _, names in os.walk(folder):
            for name in names:
                if name.startswith(TEMPORARY) and f"{where}/".startswith(f"/{prefix}"):
                    yield Unfinished(f"{where[1:]}/", name)

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        """Remove those files, and folders that this leaves empty."""
        with suppress(JobError):
            self.delete(found.key + found.upload for found in unfinished)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the files, and folders that this leaves empty."""
        for key in keys:
            with _mapped(key), suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(f"/{key}")
                folder = os.path.dirname(f"/{key}")
                with suppress(OSError):  # not empty, or not ours to remove
                    while folder != "/":
                        os.rmdir(folder)
                        folder = os.path.dirname(folder)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}")


def _tag(key: str) -> str | None:
    try:
        return _info(key, os.stat(f"/{key}")).etag
    except FileNotFoundError:
        return None


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One at a time compares and replaces, on this machine; some network file systems know no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(path: str) -> BinaryIO:
    """A new file; its folder is made again if a concurrent `delete` took it away while it was empty."""
    for _ in range(5):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileNotFoundError):
            return open(path, "xb")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return open(path, "xb")


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _mapped(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise from_os_error(error, f"file:///{key.lstrip('/')}") from None
