"""What a store is: keys with bytes, listed in order, read in ranges, and written once where asked (If-None-Match).

The rest of the trainer knows only `Location`, a store and a prefix. Invariant: a conditional write has one winner, and
the winner knows it even if the answer to its request was lost (I5 stands on this).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

Read = Callable[[int, int], bytes]
"""read(start, end) gives those bytes of what is to be written."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as listed: its key, size in bytes, and a tag that changes whenever its content does."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write that began and has not ended: of a writer at work, or left by one that was killed.

    `upload` is the store's name of it.
    """

    key: str
    upload: str


class ObjectStore(Protocol):
    """One bucket, or the local file system. All failures but the two named are `JobError`s."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, sorted by key."""

    def head(self, key: str) -> ObjectInfo | None:
        """The object's facts; None when there is none."""

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """Bytes [start, end). Raises FileNotFoundError; DataChanged when the tag is no longer `if_match`."""

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """A forward reader that goes on where a broken connection left off. Raises as `get`, also while reading."""

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write whole and at once.

        Raises FileExistsError when, with if_none_match, the key exists; with if_match, its tag is another.
        """

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write `read`'s bytes [0, size), of which only a few pieces are in memory; they become visible whole and at
        once.

        `read` is called from several threads, and again for what must be sent again.
        """

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write a file of any size; it becomes visible whole and at once."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the keys; those that do not exist are no error."""

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Writes to keys that begin with `prefix` and have not ended; none where the server does not tell."""

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        """Abort them and free what they hold; what cannot be aborted now may be later."""

    @property
    def conditional_writes(self) -> bool:
        """Whether if_none_match is decided by the server. False: it is checked by us, with a small race."""

    def uri(self, key: str) -> str:
        """The key as a user writes it."""

    def name(self, key: str) -> str:
        """The key as messages name it, before a line: within its bucket, or as a path on this disk."""


@dataclass(frozen=True, slots=True)
class Location:
    """A prefix in a store; keys are relative to it. `prefix` is empty or ends in '/'."""

    store: ObjectStore
    prefix: str = ""

    def child(self, name: str) -> Location:
        """The location `name` below this one."""
        return Location(self.store, f"{self.prefix}{name.strip('/')}/")

    def uri(self, key: str = "") -> str:
        """The full URI of a key, without a slash at the end."""
        return self.store.uri(self.prefix + key).rstrip("/")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects below, sorted, keys relative to this location."""
        cut = len(self.prefix)
        for info in self.store.list(self.prefix + prefix):
            yield ObjectInfo(info.key[cut:], info.size, info.etag)

    def head(self, key: str) -> ObjectInfo | None:
        """As the store's; the key is relative."""
        info = self.store.head(self.prefix + key)
        return info and ObjectInfo(key, info.size, info.etag)

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """As the store's; the key is relative."""
        return self.store.get(self.prefix + key, start=start, end=end, if_match=if_match)

    def find(self, key: str) -> bytes | None:
        """The whole object, or None when there is none."""
        try:
            return self.get(key)
        except FileNotFoundError:
            return None

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """As the store's; the key is relative."""
        return self.store.open(self.prefix + key, if_match=if_match)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """As the store's; the key is relative."""
        info = self.store.put(self.prefix + key, data, if_none_match=if_none_match, if_match=if_match)
        return ObjectInfo(key, info.size, info.etag)

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """As the store's; the key is relative."""
        info = self.store.put_from(self.prefix + key, size, read, if_none_match=if_none_match, if_match=if_match)
        return ObjectInfo(key, info.size, info.etag)

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """As the store's; the key is relative."""
        info = self.store.put_file(self.prefix + key, path, if_none_match=if_none_match, if_match=if_match)
        return ObjectInfo(key, info.size, info.etag)

    def delete(self, keys: Iterable[str]) -> None:
        """As the store's; the keys are relative."""
        self.store.delete(self.prefix + key for key in keys)

    def unfinished(self) -> Iterator[Unfinished]:
        """Writes below this location that have not ended, keys relative to it."""
        cut = len(self.prefix)
        for found in self.store.unfinished(self.prefix):
            yield Unfinished(found.key[cut:], found.upload)

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        """As the store's; the keys are relative."""
        self.store.discard(Unfinished(self.prefix + found.key, found.upload) for found in unfinished)
