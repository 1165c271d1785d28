"""The order of the rows: pure functions of digests, seed and epoch; no random generator, no state (I2, I4).

A keyed hash orders the blocks; windows are cut from that order (at least MIN_BLOCKS blocks, WINDOW_BYTES); a second one
orders the rows within a window. Sets up to FULL_BYTES are one window: a full permutation. Blocks may be far larger than
a window (row groups of parquet): there a window takes a range of each block's rows, every block in a phase of its own,
so that each is read on from where the window before it ended. Sorting by a hash depends on no library's generator, so
the order outlives versions. Change anything here, and the newest version must change too: profiles say which one they
were made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WHOLE_BLOCKS, ROW_RANGES = 1, 2
"""Versions of the order. WHOLE_BLOCKS: a window is as large as its blocks are.

ROW_RANGES: windows are bounded in bytes.
"""
_KEYS = 1
"""A word of every key, in all versions so far: sets that both versions lay out alike keep their order."""
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
    text = "\x1f".join(str(word) for word in (_KEYS, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


@dataclass(frozen=True, slots=True)
class Window:
    """Blocks that are held together, sorted, and how many rows of the epoch come before them.

    spans: [low, high) of each block's usable rows.
    """

    blocks: tuple[int, ...]
    start: int
    rows: int
    spans: tuple[tuple[int, int], ...]


def version_for(sizes: Sequence[int]) -> int:
    """The version that a set prepared today is read in. sizes: bytes of each block once held."""
    return WHOLE_BLOCKS if sum(sizes) <= FULL_BYTES else ROW_RANGES


def windows(
    sizes: Sequence[int],
    rows: Sequence[int],
    digest: str,
    seed: int,
    epoch: int,
    *,
    full: int = FULL_BYTES,
    window: int = WINDOW_BYTES,
    least: int = MIN_BLOCKS,
    version: int = WHOLE_BLOCKS,
) -> tuple[Window, ...]:
    """The windows of an epoch, in order. sizes: bytes of each block; rows: usable rows of each.

    In version ROW_RANGES none holds more than 2 · `window` bytes (sets up to `full` are one window in both).
    """
    used = [n for n in range(len(rows)) if rows[n]]
    bounded = version >= ROW_RANGES
    if sum(sizes[n] for n in used) <= full:
        groups, bounded = [used], False
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
        blocks = sorted(group)
        size = sum(sizes[n] for n in blocks)
        parts = -(-size // window) if bounded and size > 2 * window else 1
        phases = mix(np.array(blocks), key_of("phases", digest, seed, epoch)) % np.uint64(parts)
        for part in range(parts):
            taken = {
                n: _span(rows[n], (part + int(phase)) % parts, parts) for n, phase in zip(blocks, phases, strict=True)
            }
            spans = {n: (low, high) for n, (low, high) in taken.items() if high > low}
            count = sum(high - low for low, high in spans.values())
            if count:
                found.append(Window(tuple(spans), start, count, tuple(spans.values())))
            start += count
    return tuple(found)


def _span(rows: int, part: int, parts: int) -> tuple[int, int]:
    return rows * part // parts, rows * (part + 1) // parts


def rows_of(numbers: np.ndarray, digest: str, seed: int, epoch: int) -> np.ndarray:
    """The order of a window's rows: positions into `numbers`, the row numbers (of the split) that it holds."""
    return np.argsort(mix(numbers, key_of("rows", digest, seed, epoch)), kind="stable")
