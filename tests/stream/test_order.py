"""The order of the rows is a pure function: of the data, the seed, the epoch and the batch size, and of nothing else
(I2, I4).
"""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.stream import Batch, Cursor, Stream, order
from finetune_trainer.stream import manifest as manifest_module
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.split_reader import SplitReader
from support.jobs import job_config
from support.rows import profiled, rows_of, write

WINDOWED = {"full": 1000, "window": 1500, "least": 3}
"""Limits that make many windows of a small set."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of about ten rows, so that a small set has many."""
    monkeypatch.setattr(manifest_module, "BLOCK_BYTES", 600)
    monkeypatch.setattr("finetune_trainer.prepare.rows.scan.BLOCK_BYTES", 600)


@pytest.fixture
def data(tmp_path: Path, small_blocks: None) -> Path:
    """Three objects of 403 rows in all."""
    write(tmp_path / "data", "a.jsonl", rows_of(150))
    write(tmp_path / "data", "b.jsonl", rows_of(203, 150))
    write(tmp_path / "data", "c.csv", rows_of(50, 353))
    return tmp_path


def take(stream: Stream, count: int, cursor: Cursor | None = None) -> list[tuple[Batch, Cursor]]:
    with stream:
        return list(itertools.islice(stream.batches(cursor or Cursor()), count))


@pytest.mark.parametrize("limits", [None, WINDOWED], ids=["one window", "many windows"])
def test_every_row_comes_exactly_once_an_epoch_in_another_order_each_time(
    data: Path, limits: dict[str, int] | None
) -> None:
    config = job_config(data, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    stream = Stream(config, manifest, profile, limits=limits)
    steps = -(-403 // 16)
    batches = take(stream, 2 * steps)
    epochs = [[b for b, _ in batches if b.epoch == e] for e in (0, 1)]
    for epoch in epochs:
        assert [b.size for b in epoch] == [16] * 25 + [3]  # the last batch is smaller, and nothing is padded
        assert sorted(n for b in epoch for n in b.indices) == list(range(403))
        assert sorted(int(row["text"].split()[-1]) for b in epoch for row in b.rows) == list(range(403))
    assert [b.indices for b in epochs[0]] != [b.indices for b in epochs[1]]
    assert [b.step for b, _ in batches] == list(range(1, 2 * steps + 1))
    assert batches[-1][1] == Cursor(2 * steps, 2, 0)


@pytest.mark.parametrize("limits", [None, WINDOWED], ids=["one window", "many windows"])
@pytest.mark.parametrize("world", [2, 3, 7])
def test_the_global_batches_do_not_depend_on_the_number_of_ranks(
    data: Path, limits: dict[str, int] | None, world: int
) -> None:
    config = job_config(data, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    alone = take(Stream(config, manifest, profile, limits=limits), 40)
    ranks = [take(Stream(config, manifest, profile, rank=r, world=world, limits=limits), 40) for r in range(world)]
    for t in range(40):
        together: list[Any] = [None] * alone[t][0].size
        for rank in range(world):
            assert ranks[rank][t][0].indices == alone[t][0].indices
            assert ranks[rank][t][1] == alone[t][1]
            together[rank::world] = ranks[rank][t][0].rows
        assert together == alone[t][0].rows


@pytest.mark.parametrize("limits", [None, WINDOWED], ids=["one window", "many windows"])
def test_a_resumed_stream_goes_on_as_if_it_had_never_stopped(data: Path, limits: dict[str, int] | None) -> None:
    config = job_config(data, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    whole = take(Stream(config, manifest, profile, limits=limits), 60)
    for stop in (1, 7, 25, 26, 27, 40):
        cursor = Cursor(**asdict(whole[stop - 1][1]))
        rest = take(Stream(config, manifest, profile, limits=limits), 60 - stop, cursor)
        assert [(b.rows, b.indices, b.epoch, b.step, c) for b, c in rest] == [
            (b.rows, b.indices, b.epoch, b.step, c) for b, c in whole[stop:]
        ]


def test_resuming_reads_no_more_than_the_windows_ahead(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job_config(data, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    blocks = sum(len(item.blocks) for item in manifest.sources["train"].objects)
    read: list[int] = []
    read_rows = SplitReader.read
    monkeypatch.setattr(SplitReader, "read", lambda self, n, span: read.append(n) or read_rows(self, n, span))
    late = take(Stream(config, manifest, profile, limits=WINDOWED), 24)[-1][1]
    read.clear()
    take(Stream(config, manifest, profile, limits=WINDOWED), 1, late)
    assert 0 < len(read) <= 4 * WINDOWED["least"] < blocks


def test_seed_data_columns_and_order_version_change_the_order_and_the_batch_size_only_cuts_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job_config(data, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)

    def order_of(**changes: Any) -> list[int]:
        stream = Stream(config, manifest, changes.pop("profile", profile), **changes)
        return [n for batch, _ in take(stream, 12) for n in batch.indices]

    first = order_of()
    assert order_of() == first
    assert order_of(seed=7) != first
    assert order_of(global_batch_size=32)[: len(first)] == first
    other = Profile(**{name: getattr(profile, name) for name in Profile.__slots__} | {"digest": "other"})
    assert order_of(profile=other) != first
    monkeypatch.setattr(order, "_KEYS", 2)
    assert order_of() != first


def test_the_order_of_today_is_the_order_of_tomorrow() -> None:
    # If this fails, the order changed: checkpoints of running jobs would go on with other rows. Raise ORDER_VERSION.
    assert order.rows_of(np.arange(12), "digest", 42, 3).tolist() == PINNED_ROWS
    planned = order.windows([10] * 12, [3] * 12, "digest", 42, 0, full=50, window=30, least=2)
    assert [window.blocks for window in planned] == PINNED_WINDOWS


PINNED_ROWS = [9, 10, 11, 5, 3, 1, 4, 2, 7, 6, 8, 0]
PINNED_WINDOWS = [(2, 3, 4), (1, 6, 11), (0, 5, 10), (7, 8, 9)]


def test_a_sorted_set_is_well_mixed(data: Path) -> None:
    # 5,000 rows sorted by class in 125 blocks: every run of batches must see both classes about equally.
    config_rows = [40] * 125
    planned = order.windows([1000] * 125, config_rows, "d", 1, 0, full=10_000, window=16_000, least=16)
    for window in planned:
        assert len(window.blocks) >= 16
        low = sum(1 for block in window.blocks if block < 62)
        assert 0.1 < low / len(window.blocks) < 0.9
    full = order.rows_of(np.arange(5000), "d", 1, 0)
    means = (full.reshape(-1, 50) < 2500).mean(axis=1)
    assert means.min() > 0.2
    assert means.max() < 0.8


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    full=st.integers(0, 400),
    window=st.integers(1, 300),
    least=st.integers(1, 8),
    epoch=st.integers(0, 3),
)
def test_windows_share_out_all_blocks_with_rows(
    rows: list[int], full: int, window: int, least: int, epoch: int
) -> None:
    planned = order.windows([10 * n + 1 for n in rows], rows, "d", 5, epoch, full=full, window=window, least=least)
    used = [block for one in planned for block in one.blocks]
    assert sorted(used) == [n for n, count in enumerate(rows) if count]
    start = 0
    for one in planned:
        assert one.start == start
        assert one.rows == sum(rows[block] for block in one.blocks)
        start += one.rows
    if len(planned) > 1:
        assert all(len(one.blocks) >= least for one in planned)


# ---------------------------------------------------------------------- splits


def test_fractions_hold_out_the_same_rows_whatever_the_seed_and_share_none(data: Path) -> None:
    spec = {
        "data": {
            "train": {"uri": f"{data.as_uri()}/data/*"},
            "validation": {"fraction": 0.2},
            "test": {"fraction": 0.1},
        }
    }
    found: list[dict[str, list[str]]] = []
    for seed in (1, 2):
        config = job_config(data, training={"globalBatchSize": 16, "seed": seed}, **spec)
        manifest, profile = profiled(config)
        texts = {}
        for split in ("train", "validation", "test"):
            with Stream(config, manifest, profile, split) as stream:
                texts[split] = [row["text"] for row in stream.rows()]
                assert len(texts[split]) == stream.row_count
        found.append(texts)
    assert found[0] == found[1]
    everything = [text for texts in found[0].values() for text in texts]
    assert len(everything) == len(set(everything)) == 403
    assert [len(found[0][split]) for split in ("validation", "test")] == [81, 40]  # of 403


def test_held_out_rows_come_in_file_order_and_are_dealt_to_the_ranks(data: Path) -> None:
    config = job_config(data)
    manifest, profile = profiled(config)
    with Stream(config, manifest, profile) as stream:
        alone = [row["text"] for row in stream.rows()]
    assert alone == [row["text"] for row in rows_of(403)]
    for rank in range(3):
        with Stream(config, manifest, profile, rank=rank, world=3) as stream:
            assert [row["text"] for row in stream.rows()] == alone[rank::3]


def test_manifest_and_profile_survive_their_json(data: Path) -> None:
    config = job_config(data)
    manifest, profile = profiled(config)
    again = DataManifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.digest == manifest.digest
    assert Profile.from_json(profile.to_json()) == profile


def test_a_row_has_one_position_in_its_source_whatever_the_split(data: Path) -> None:
    bad = [row | {"label": None} for row in rows_of(3, 403)]
    write(data / "data", "b.jsonl", [*bad[:2], *rows_of(203, 150), bad[2]])
    spec = {
        "train": {"uri": f"{data.as_uri()}/data/*"},
        "validation": {"fraction": 0.2},
        "test": {"fraction": 0.1},
        "maxBadRows": 3,
    }
    config = job_config(data, data=spec)
    manifest, profile = profiled(config)
    everything = [*range(150), 403, 404, *range(150, 353), 405, *range(353, 403)]  # a.jsonl, b.jsonl, c.csv
    met: list[int] = []
    for split in ("train", "validation", "test"):
        with Stream(config, manifest, profile, split) as stream:
            texts = [int(row["text"].split()[-1]) for row in stream.rows()]
            places = stream.positions(np.arange(stream.row_count))
            assert places.dtype == np.int64
            assert [everything[place] for place in places] == texts
            some = np.array([5, 3, 3, stream.row_count - 1])
            assert stream.positions(some).tolist() == places[some].tolist()
            assert len(stream.positions(np.zeros(0, dtype=np.int64))) == 0
            met += places.tolist()
    assert sorted(met) == [n for n, number in enumerate(everything) if number < 403]
