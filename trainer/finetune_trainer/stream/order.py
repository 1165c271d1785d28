"""The order of the rows: pure functions of digests, seed and epoch; no random generator, no state (I2, I4).

A keyed hash orders the blocks; windows are cut from that order (at least MIN_BLOCKS blocks, WINDOW_BYTES); a second one orders
the rows within a window. Sets up to FULL_BYTES are one window: a full permutation. Sorting by a hash depends on no library's
generator, so the order outlives versions. Change anything here, and ORDER_VERSION must change too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDER_VERSION = 1
FULL_BYTES = 256 << 20
WINDOW_BYTES = 128 << 20
MIN_BLOCKS = 16


def mix(values: np.ndarray, key: int) -> np.ndarray:
    """A keyed 64-bit hash of each value (splitmix64's finaliser, Steele et al. 2014, twice)."""
    x = values.astype(np.uint64)
    with np.errstate(over="ignore"):
        for part in (key & 0xFFFFFFFFFFFFFFFF, key >> 64):
            x = x + np.uint64(part) + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x


def key_of(*words: object) -> int:
    """128 bits from words."""
    text = "\x1f".join(str(word) for word in (ORDER_VERSION, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


@dataclass(frozen=True, slots=True)
class Window:
    """Blocks that are held together, sorted, and how many rows of the epoch come before them."""

    blocks: tuple[int, ...]
    start: int
    rows: int


def windows(
    sizes: Sequence[int], rows: Sequence[int], digest: str, seed: int, epoch: int,
    *, full: int = FULL_BYTES, window: int = WINDOW_BYTES, least: int = MIN_BLOCKS,
) -> tuple[Window, ...]:  # fmt: skip
    """The windows of an epoch, in order. sizes: bytes of each block; rows: usable rows of each."""
    used = [n for n in range(len(rows)) if rows[n]]
    if sum(sizes[n] for n in used) <= full:
        groups = [used]
    else:
        order = np.array(used)[np.argsort(mix(np.array(used), key_of("blocks", digest, seed, epoch)), kind="stable")]
        groups, held = [[]], 0
        for n in (int(n) for n in order):
            if groups[-1] and len(groups[-1]) >= least and held + sizes[n] > window:
                groups.append([])
                held = 0
            groups[-1].append(n)
            held += sizes[n]
        if len(groups) > 1 and len(groups[-1]) < least:  # a last window of few blocks would be poorly mixed
            groups[-2:] = [groups[-2] + groups[-1]]
    found, start = [], 0
    for group in groups:
        count = sum(rows[n] for n in group)
        if count:
            found.append(Window(tuple(sorted(group)), start, count))
        start += count
    return tuple(found)


def rows_of(numbers: np.ndarray, digest: str, seed: int, epoch: int) -> np.ndarray:
    """The order of a window's rows: positions into `numbers`, the row numbers (of the split) that it holds."""
    return np.argsort(mix(numbers, key_of("rows", digest, seed, epoch)), kind="stable")
