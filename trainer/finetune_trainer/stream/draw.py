"""A fixed draw of a split's rows, which stand for all of them where reading all would take long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finetune_trainer.stream.split_reader import SplitReader

SEED = 0
"""Of rows that stand for a whole split, whatever the job's seed: so that jobs compare."""
MOST_BLOCKS = 32
"""So many blocks are read at most; of more, as many are drawn, so that rows of one block stand together."""


def drawn_rows(rows: list[int], most: int, seed: int) -> list[tuple[int, np.ndarray]]:
    """(block, places of its drawn rows, sorted) of blocks with so many rows each: `most` rows in all, or all there are.

    The same for the same numbers and seed; each row is as likely as any other.
    """
    draw = np.random.default_rng(seed)
    ends = np.cumsum(rows)
    total = int(ends[-1]) if len(rows) else 0
    chosen = np.sort(draw.choice(total, min(most, total), replace=False))
    blocks = np.searchsorted(ends, chosen, side="right")
    hit = np.unique(blocks)
    if len(hit) > MOST_BLOCKS:
        kept = np.sort(draw.choice(hit, MOST_BLOCKS, replace=False))
        inside = np.concatenate([np.arange(ends[block] - rows[block], ends[block]) for block in kept])
        chosen = np.sort(draw.choice(inside, min(most, len(inside)), replace=False))
        blocks, hit = np.searchsorted(ends, chosen, side="right"), kept
    return [(int(block), chosen[blocks == block] - (ends[block] - rows[block])) for block in hit]


def drawn(reader: SplitReader, most: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """The drawn rows in file order, each with its number in the split."""
    for n, places in drawn_rows([block.rows for block in reader.blocks], most, seed):
        low = int(places[0])
        rows = reader.read(n, (low, int(places[-1]) + 1))
        reader.release_all_but(())
        for place in places.tolist():
            yield reader.blocks[n].first + place, rows[place - low]
