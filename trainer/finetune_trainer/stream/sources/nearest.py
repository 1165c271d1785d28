"""What lies nearest to a pattern that matched nothing."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

from finetune_trainer.storage import ObjectInfo, ObjectStore
from finetune_trainer.stream.sources.globs import fixed_prefix

_LOOK_AT = 2000
"""Keys, at most."""


def nearest(store: ObjectStore, pattern: str, count: int = 3) -> list[str]:
    """Keys that are most like the pattern, from the closest prefix that has any."""
    prefix = fixed_prefix(pattern)
    while True:
        keys = [info.key for info in itertools.islice(_quietly(store, prefix), _LOOK_AT)]
        if keys or not prefix or (store.uri("").startswith("file") and prefix.count("/") < 2):
            break
        prefix = prefix.rstrip("/").rpartition("/")[0]
        prefix += "/" if prefix else ""
    return [store.uri(key) for key in difflib.get_close_matches(pattern, keys, count, cutoff=0.0)]


def _quietly(store: ObjectStore, prefix: str) -> Iterable[ObjectInfo]:
    if store.uri("").startswith("file") and not prefix:
        return ()
    return store.list(prefix)
