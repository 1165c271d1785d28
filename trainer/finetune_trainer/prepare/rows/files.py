"""Rows that stand for files: each file is opened and checked on the way, several at once, in the rows' order.

What a row says of its file is replaced by where it lies and its tag, so that it can be fetched when the row's turn
comes and is known to be the same. Such rows are written to the job's own table beside its other copies: behind it, they
are rows like any other. Rows of parquet that hold bytes stay where they are.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from finetune_api.forms import in_form
from finetune_api.records import Fault
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.prepare.rows.copies import BlockWriter
from finetune_trainer.prepare.rows.folder import FolderScan
from finetune_trainer.prepare.rows.scan import ObjectScan
from finetune_trainer.storage import Location, ObjectInfo
from finetune_trainer.stream.files import BrokenBase64, Files, as_text, bytes_in, held_bytes, reference
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.tasks.base import Task

log = logging.getLogger(__name__)
THREADS = 8
AHEAD, AHEAD_BYTES = 64, 64 << 20
"""Rows that are looked at before their turn, at most, and the bytes of files that these hold themselves."""
LARGEST = 128 << 20
"""Bytes of a file, at most: eight are in memory at once."""
TELL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found of a row's file. `digest`: 64 bits of its content; `value`: what the row holds from now on."""

    fault: Fault | None = None
    value: Any = None
    digest: int = 0
    size: int = 0
    oddities: tuple[str, ...] = ()
    elsewhere: bool = False
    """The file is not in the row itself."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row on its way; `name`: the object as findings name it; `block`: number of the row's block."""

    row: int
    line: int
    values: dict[str, Any] | Fault
    name: str
    block: int
    opened: Opened | None = None


@dataclass(slots=True)
class FileChecks:
    """Opens what rows stand for. `column` holds it."""

    files: Files
    task: Task
    column: str
    out: Location
    oddities: Counter[str] = field(default_factory=Counter)
    first_odd: dict[str, tuple[str, int]] = field(default_factory=dict)
    checked: int = 0
    _told: float = field(default_factory=time.monotonic)

    def table(self, role: str, number: int) -> BlockWriter:
        """A place for the rows of object `number` of a source."""
        return BlockWriter(self.out, f"files-{role}-{number:06}")

    def ahead(self, listing: Listing, scan: ObjectScan | FolderScan) -> Iterator[Item]:
        """The rows of an object with what their files are. Raises JobError."""
        base = scan.key.rpartition("/")[0]
        waiting: deque[tuple[Item, Future[Opened] | None, int]] = deque()
        held = 0
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="files")

        def first() -> Item:
            nonlocal held
            item, future, size = waiting.popleft()
            held -= size
            if future is None:
                return item
            self._tell()
            return Item(item.row, item.line, item.values, item.name, item.block, future.result())

        try:
            for row, line, values in scan:
                item = Item(row, line, values, scan.name, scan.block)
                future, size = None, 0
                if not isinstance(values, Fault):
                    value = in_form(values, (self.column,)).get(self.column)
                    if value is not None:
                        size = len(value) if isinstance(value, str) else len(held_bytes(value) or b"")
                        future = pool.submit(self._open, listing, base, scan.file, value)
                waiting.append((item, future, size))
                held += size
                while len(waiting) >= AHEAD or (held > AHEAD_BYTES and len(waiting) > 1):
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self, listing: Listing, base: str, own: ObjectInfo | None, value: Any) -> Opened:
        if not isinstance(value, str):
            data = held_bytes(value)
            if data is None:
                return Opened(_no_file(self.column, value))
            return self._checked(data, value, False)
        try:
            if (data := bytes_in(value)) is not None:
                if len(data) > LARGEST:
                    message = f"holds an image of {len(data):,} bytes, and {LARGEST:,} are allowed; make it smaller"
                    return Opened(Fault("TooLarge", f"column {self.column!r} {message}"))
                return self._checked(data, as_text(data), True)  # copied: another row of the object may name a path
        except BrokenBase64 as error:
            return Opened(Fault("BrokenBase64", f"column {self.column!r} {error}"))
        try:
            uri = resolved(value, listing, base)
        except ValueError as error:
            return Opened(Fault("InvalidPath", f"column {self.column!r} {error}"))
        store, key = self.files.place(uri)
        info = own or store.head(key)
        if info is None:
            return Opened(Fault("MissingFile", f"names {value[:200]!r}, and there is no {uri[:200]}; correct the path"))
        if info.size > LARGEST:
            message = f"names a file of {info.size:,} bytes ({uri[:200]}), and {LARGEST:,} are allowed; make it smaller"
            return Opened(Fault("TooLarge", message))
        try:
            data = store.get(key, if_match=info.etag)
        except FileNotFoundError:
            return Opened(Fault("MissingFile", f"names {uri[:200]}, which was deleted a moment ago"))
        found = self._checked(data, reference(uri, info.etag), True)
        if found.fault is None or own:
            return found
        return Opened(Fault(found.fault.kind, f"names {uri[-200:]}, which {found.fault.message}"))

    def _checked(self, data: bytes, value: Any, elsewhere: bool) -> Opened:
        assert self.task.check_file is not None
        problem, oddities = self.task.check_file(data)
        if problem is not None:
            return Opened(Fault("BadFile", problem))
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
        return Opened(None, value, digest, len(data), oddities, elsewhere)

    def note(self, item: Item) -> None:
        """A usable row: count what is odd about its file."""
        assert item.opened is not None
        self.checked += 1
        for oddity in item.opened.oddities:
            self.oddities[oddity] += 1
            self.first_odd.setdefault(oddity, (item.name, item.line))

    def findings(self) -> list[Finding]:
        """What is changed to read the files."""
        if not self.oddities:
            return []
        counts = ", ".join(f"{count:,} {oddity}" for oddity, count in self.oddities.most_common())
        file, line = next(iter(self.first_odd.values()))
        message = self.task.oddities.format(counts=counts)
        return [
            Finding(
                kind="Converted",
                count=max(self.oddities.values()),
                file=file[-256:],
                line=line or None,
                message=clip(message, 384),
            )
        ]

    def _tell(self) -> None:
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            log.info("opened %d files so far", self.checked)


def resolved(value: str, listing: Listing, base: str) -> str:
    """The URI of a file that a row names: in full, or relative to the object that names it, which lies in `base`.

    Raises ValueError.
    """
    scheme = listing.uri.partition("://")[0]
    if not value.strip():
        raise ValueError("is empty; give it the path of a file")
    if "://" in value[:12] or value.startswith("data:"):
        if value.partition("://")[0] != scheme:
            raise ValueError(
                f"holds {value[:100]!r}; name a file relative to the one that names it, or as {scheme}://…: nothing"
                " else is fetched"
            )
        return value
    if value.startswith("/"):
        if scheme != "file":
            raise ValueError(
                f"holds {value[:100]!r}; write it relative to the file that names it, without a '/' before"
            )
        return listing.store.uri(posixpath.normpath(value).lstrip("/"))
    key = posixpath.normpath(posixpath.join(base, value))
    if key.startswith("..") or "\0" in key:
        raise ValueError(f"holds {value[:100]!r}, which leads out of the storage; correct the path")
    return listing.store.uri(key)


def _no_file(column: str, value: Any) -> Fault:
    if isinstance(value, Mapping) and value.get("path"):
        what = f"column {column!r} holds the path {str(value['path'])[:100]!r} without its bytes"
        return Fault("InvalidRow", f"{what}; write the bytes too, or the path alone as a string")
    what = "a list" if isinstance(value, list) else type(value).__name__
    return Fault("InvalidRow", f"column {column!r} holds {what}, and no file; give it a path, or in parquet its bytes")


def checks_for(task: Task, columns: Mapping[str, str], files: Files, out: Location) -> FileChecks | None:
    """None where rows stand for themselves."""
    role = next((role.name for role in task.info.roles if role.files and role.name in columns), None)
    return None if role is None else FileChecks(files, task, columns[role], out)
