"""Which jobs of a namespace write to the same place: to the same prefix, or one within the other's.

A job owns all of its prefix: it lists what lies there, and sweeps it of old checkpoints. So s3://b/out and s3://b/out/x
get in each other's way just as two equal prefixes do; s3://b/out and s3://b/outer do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")


class OutputIndex(Generic[Key]):
    """Keys of jobs by their place, as the store writes it. Looking one up takes a step for each folder of its path."""

    def __init__(self) -> None:
        self._at: dict[str, set[Key]] = defaultdict(set)
        self._below: dict[str, set[Key]] = defaultdict(set)  # those at a place or within it

    def add(self, key: Key, place: str) -> None:
        self._at[place].add(key)
        for folder in _folders(place):
            self._below[folder].add(key)

    def remove(self, key: Key, place: str) -> None:
        for index, folders in ((self._at, (place,)), (self._below, tuple(_folders(place)))):
            for folder in folders:
                index[folder].discard(key)
                if not index[folder]:
                    del index[folder]

    def sharing(self, place: str) -> set[Key]:
        """Those whose place is this one, holds it, or lies in it; the asker among them."""
        found: set[Key] = set()
        for folder in _folders(place):
            found |= self._at.get(folder, set())
        return found | self._below.get(place, set())


def _folders(place: str) -> Iterator[str]:
    """The place itself, and each folder above it up to the bucket; nothing for a spec without an output."""
    endpoint, _, uri = place.partition(" ")
    scheme, found, path = uri.partition("://")
    if not found:
        return
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        yield f"{endpoint} {scheme}://{'/'.join(parts[:length])}"
