"""A fixed draw of rows: as many as wanted, each as likely as any other, from few blocks, the same for any ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from finetune_trainer.stream import Stream
from finetune_trainer.stream.draw import MOST_BLOCKS, drawn_rows
from support.jobs import job_config
from support.rows import profiled, rows_of, write


def test_so_many_rows_as_are_wanted_or_all() -> None:
    rows = [5, 0, 7, 1, 40]
    for most, wanted in ((1, 1), (20, 20), (53, 53), (99, 53)):
        found = drawn_rows(rows, most, 0)
        assert sum(len(places) for _, places in found) == wanted
        assert all((np.diff(places) > 0).all() and places[-1] < rows[block] for block, places in found)
        assert [block for block, _ in found] == sorted({block for block, _ in found})
    assert drawn_rows([], 9, 0) == drawn_rows([0, 0], 9, 0) == []


def test_each_row_is_as_likely_and_the_draw_fixed() -> None:
    seen = Counter(
        (block, int(place)) for seed in range(900) for block, places in drawn_rows([3, 9], 4, seed) for place in places
    )
    assert len(seen) == 12
    assert min(seen.values()) > 230  # 300 in the mean
    again = [[places.tolist() for _, places in drawn_rows([30, 90], 40, 3)] for _ in range(2)]
    assert again[0] == again[1]


def test_few_blocks_are_read() -> None:
    found = drawn_rows([100] * 500, 1000, 0)
    assert len(found) == MOST_BLOCKS
    assert sum(len(places) for _, places in found) == 1000


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv.gz"])
def test_ranks_share_a_draw_of_the_training_rows(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "data", f"a.{ending}", rows_of(300))
    write(tmp_path / "data", f"b.{ending}", rows_of(100, start=300))
    config = job_config(tmp_path, data={"train": {"uri": f"{tmp_path.as_uri()}/data/*"}})
    manifest, profile = profiled(config, {"text": "id", "label": "label"})
    parts = []
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        with Stream(config, manifest, profile, rank=rank, world=world) as stream:
            parts.append({number: row["id"] for number, row in stream.drawn(60, 0)})
    whole, *halves = parts
    assert len(whole) == 60
    assert all(text == str(number) for number, text in whole.items())
    assert halves[0] | halves[1] == whole
    assert not halves[0].keys() & halves[1].keys()
