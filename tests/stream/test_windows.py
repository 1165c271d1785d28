"""Windows are bounded in bytes whatever the blocks are, and what was held out is read without the training rows (I2,
I4).
"""

from __future__ import annotations

import gc
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.run import RunConfig
from finetune_trainer.prepare.layout.reblock import reblock, weigh
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.scan import ROW_BYTES
from finetune_trainer.prepare.rows.survey import survey
from finetune_trainer.storage import location
from finetune_trainer.storage.file import FileStore
from finetune_trainer.stream import Batch, Cursor, DataManifest, Profile, Stream, order
from finetune_trainer.stream.blocks import RowGroup
from finetune_trainer.stream.formats.parquet import ParquetReader
from finetune_trainer.stream.sources.source import list_source
from finetune_trainer.stream.windows import LoadedWindow, WindowLoader
from finetune_trainer.tasks.registry import task_for
from support.jobs import job_config
from support.rows import ENDINGS, profiled, rows_of, write

LIMITS = {"full": 4000, "window": 4000, "least": 3, "version": order.ROW_RANGES}
"""Windows of a few dozen rows of row groups that hold hundreds."""


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two objects of five row groups, 400 rows each but for the last of both: 50 to 80 times a window."""
    monkeypatch.setattr("finetune_trainer.stream.formats.parquet._BATCH", 16)
    write(tmp_path / "data", "a.parquet", rows_of(1300), row_group=400)
    write(tmp_path / "data", "b.parquet", rows_of(500, 1300), row_group=400)
    return tmp_path


def take(stream: Stream, count: int, cursor: Cursor | None = None) -> list[tuple[Batch, Cursor]]:
    with stream:
        return list(itertools.islice(stream.batches(cursor or Cursor()), count))


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 500)), min_size=1, max_size=30),
    window=st.integers(20, 300),
    least=st.integers(1, 6),
    epoch=st.integers(0, 3),
)
def test_no_window_is_larger_than_twice_the_limit_and_every_row_comes_once(
    blocks: list[tuple[int, int]], window: int, least: int, epoch: int
) -> None:
    rows, sizes = [n for n, _ in blocks], [n * size for n, size in blocks]
    planned = order.windows(
        sizes, rows, "digest", 5, epoch, full=100, window=window, least=least, version=order.ROW_RANGES
    )
    seen = [(b, row) for one in planned for b, span in zip(one.blocks, one.spans, strict=True) for row in range(*span)]
    assert sorted(seen) == [(b, row) for b, count in enumerate(rows) for row in range(count)]
    start = 0
    for one in planned:
        assert (one.start, one.rows) == (start, sum(high - low for low, high in one.spans))
        start += one.rows
        one_row = sum(sizes[b] / rows[b] for b in one.blocks)  # a window cannot hold less than a row of each
        held = sum(sizes[b] / rows[b] * (high - low) for b, (low, high) in zip(one.blocks, one.spans, strict=True))
        assert held <= max(2 * window, 100) + one_row


def test_sets_of_small_blocks_keep_the_order_of_earlier_versions() -> None:
    sizes, rows = [8 << 20] * 100, [1000] * 100
    old, new = (order.windows(sizes, rows, "d", 1, 0, version=v) for v in (order.WHOLE_BLOCKS, order.ROW_RANGES))
    assert old == new
    assert order.windows([200 << 20], [10], "d", 1, 0, version=order.ROW_RANGES)[0].spans == ((0, 10),)


def test_a_window_draws_from_every_large_block_in_a_phase_of_its_own() -> None:
    planned = order.windows([1 << 30] * 16, [1024] * 16, "d", 1, 0, version=order.ROW_RANGES)
    assert len(planned) == 128
    for one in planned:
        assert len(one.blocks) == 16
        assert len({low for low, _ in one.spans}) > 8


def test_row_groups_larger_than_a_window_are_read_by_ranges(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job_config(groups, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    decoded: list[int] = []
    batches = ParquetReader.batches
    monkeypatch.setattr(ParquetReader, "batches", lambda *a: (decoded.append(b.num_rows) or b for b in batches(*a)))
    held: list[int] = []
    read = WindowLoader.read
    monkeypatch.setattr(WindowLoader, "read", lambda self, content: _counted(read(self, content), held))
    steps = -(-1800 // 16)
    whole = take(Stream(config, manifest, profile, limits=LIMITS), steps)
    assert sorted(n for b, _ in whole for n in b.indices) == list(range(1800))
    assert sorted(int(row["text"].split()[-1]) for b, _ in whole for row in b.rows) == list(range(1800))
    assert len(held) > 10
    assert max(held) <= 2 * LIMITS["window"]
    # Each row group is decoded twice an epoch at most (its phase, then its beginning), the next epoch's first window
    # once.
    assert sum(decoded) <= 3 * 1800
    for stop in (1, 40, 80, 112):
        rest = take(
            Stream(config, manifest, profile, limits=LIMITS), steps - stop, Cursor(**asdict(whole[stop - 1][1]))
        )
        assert [(b.rows, b.indices, c) for b, c in rest] == [(b.rows, b.indices, c) for b, c in whole[stop:]]
    two = [take(Stream(config, manifest, profile, rank=r, world=2, limits=LIMITS), 30) for r in range(2)]
    for t in range(30):
        assert two[0][t][0].indices == two[1][t][0].indices == whole[t][0].indices
        assert [*two[0][t][0].rows, *two[1][t][0].rows] == whole[t][0].rows[0::2] + whole[t][0].rows[1::2]


def test_no_more_than_two_windows_are_held_at_any_time(groups: Path) -> None:
    config = job_config(groups, training={"globalBatchSize": 7})
    manifest, profile = profiled(config)
    most = 0
    gc.collect()
    with Stream(config, manifest, profile, limits=LIMITS) as stream:
        largest = max(window.rows for window in stream.windows(0))
        for batch, _ in stream.batches(Cursor()):
            most = max(most, sum(len(found.rows) for found in gc.get_objects() if type(found) is LoadedWindow))
            if batch.epoch:
                break
    assert largest < most <= 2 * largest + 7


def _counted(found: Any, held: list[int]) -> Any:
    held.append(sum(map(len, found.rows)))
    return found


def test_ranges_skip_what_other_splits_have_and_bad_rows(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.stream.splits._CHUNK", 64)
    monkeypatch.setattr("finetune_trainer.stream.split_reader.PIECE_BYTES", 3000)
    write(
        groups / "data",
        "c.parquet",
        [row | {"label": None if n in (3, 250) else "x"} for n, row in enumerate(rows_of(300, 1800))],
        300,
    )
    data = {"train": {"uri": f"{groups.as_uri()}/data/*"}, "validation": {"fraction": 0.3}, "maxBadRows": 2}
    config = job_config(groups, data=data, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    with Stream(config, manifest, profile) as stream:
        count = stream.row_count
        in_order = [row["text"] for row in stream.rows()]
    drawn = [
        row["text"]
        for b, _ in take(Stream(config, manifest, profile, limits=LIMITS), -(-count // 16))
        for row in b.rows
    ]
    with Stream(config, manifest, profile, "validation") as stream:
        rest = [row["text"] for row in stream.rows()]
    assert sorted(drawn) == sorted(in_order)
    assert sorted(drawn + rest) == sorted(row["text"] for n, row in enumerate(rows_of(2100)) if n not in (1803, 2050))


def test_a_few_rows_of_large_row_groups_are_held_out_without_holding_the_groups(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.stream.split_reader.PIECE_BYTES", 3000)
    data = {"train": {"uri": f"{groups.as_uri()}/data/*"}, "test": {"fraction": 0.004}}
    config = job_config(groups, data=data)
    asked: list[int] = []
    rows = RowGroup.rows
    monkeypatch.setattr(RowGroup, "rows", lambda self, low, high: asked.append(high - low) or rows(self, low, high))
    _, profile = profiled(config)
    assert sum(block.rows for block in profile.held_out["test"]) == 7
    assert sum(asked) < 600
    assert max(asked) < 200


def test_an_earlier_profile_is_read_in_its_own_order(groups: Path) -> None:
    config = job_config(groups, training={"globalBatchSize": 16})
    manifest, profile = profiled(config)
    stored = replace(profile, order=order.ROW_RANGES).to_json()
    assert Profile.from_json(stored).order == order.ROW_RANGES
    del stored["order"], stored["heldOut"]
    earlier = Profile.from_json(stored)
    assert (earlier.order, earlier.held_out) == (order.WHOLE_BLOCKS, {})
    limits = {name: LIMITS[name] for name in ("full", "window", "least")}
    windows = Stream(config, manifest, earlier, limits=limits).windows(0)
    assert all(low == 0 and high in (400, 100) for one in windows for low, high in one.spans)


# ---------------------------------------------------------------------- what is held, not what is stored


def seen_of(config: RunConfig, columns: dict[str, str]) -> Any:
    return survey(list_source(config, "train"), task_for(config.task), columns, None, BadRows(0), None)


@pytest.mark.parametrize("ending", ENDINGS)
def test_blocks_are_weighed_by_what_they_take_in_memory(tmp_path: Path, ending: str) -> None:
    rows = [{"text": "again and again " * 20, "label": "abcd"[n % 4], "other": "x" * 500} for n in range(200)]
    write(tmp_path / "data", f"a.{ending}", rows, row_group=100)
    config = job_config(tmp_path)
    seen = seen_of(config, {"text": "text", "label": "label"})
    kept = [row if ending.startswith("jsonl") else {"text": row["text"], "label": row["label"]} for row in rows]
    wanted = sum(len(json.dumps(row, separators=(",", ":"))) + ROW_BYTES for row in kept)
    (weights,) = seen.weights
    assert len(weights) == (2 if ending == "parquet" else 1)
    assert wanted <= sum(weights) <= 1.05 * wanted
    assert weigh(seen.source, seen.weights) is seen.source  # small enough to be held whole: nothing changes
    weighed = weigh(seen.source, seen.weights, full=1000)
    assert [block.size for block in weighed.objects[0].blocks] == list(weights)
    if ending == "parquet":  # the dictionary holds each text once
        assert sum(weights) > 3 * sum(block.size for block in seen.source.objects[0].blocks)


def test_a_few_large_row_groups_are_copied_and_many_are_not(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.rows.copies.BLOCK_BYTES", 2000)
    config = job_config(groups)
    manifest, profile = profiled(config)
    source, out = manifest.sources["train"], location(config.output.uri, config.storage)
    store = list_source(config, "train").store
    with Stream(config, manifest, profile) as stream:
        before = [row["text"] for row in stream.rows()]
    copied, noted = reblock(source, "train", store, out, ("text", "label"), full=1000, largest=5000)
    assert [finding.kind for finding in noted] == ["Copied"]
    assert "row groups" in noted[0].message
    blocks = [b for item in copied.objects for b in item.blocks]
    assert max(b.size for b in blocks) <= 5000 + 400 * ROW_BYTES
    assert [b.row for item in copied.objects for b in item.blocks] == [
        row for item in copied.objects for row in itertools.accumulate((b.rows for b in item.blocks[:-1]), initial=0)
    ]
    with Stream(config, DataManifest({"train": copied}), profile) as stream:
        assert [row["text"] for row in stream.rows()] == before
    monkeypatch.setattr(order, "MIN_BLOCKS", 2)  # no group is more than half of the set
    assert reblock(source, "train", store, out, ("text", "label"), full=1000, largest=5000) == (source, [])
    monkeypatch.undo()
    same, _ = reblock(source, "train", store, out, ("text", "label"), full=1000, largest=5000, most=100)
    assert same is source  # too much to copy: ranges it is
    first = reblock(source, "train", store, out, ("text",), full=1000, largest=5000, version=order.WHOLE_BLOCKS)
    assert first == (source, [])


# ---------------------------------------------------------------------- copies of held-out rows


@pytest.mark.parametrize("ending", ENDINGS)
def test_held_out_rows_are_read_without_the_training_rows(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.rows.copies.BLOCK_BYTES", 600)
    write(tmp_path / "data", f"a.{ending}", rows_of(150))
    write(tmp_path / "data", f"b.{ending}", rows_of(77, 150))
    data = {"train": {"uri": f"{tmp_path.as_uri()}/data/*"}, "validation": {"fraction": 0.2}, "test": {"fraction": 0.1}}
    config = job_config(tmp_path, data=data)
    manifest, profile = profiled(config)
    by_source = replace(profile, held_out={})  # as jobs of earlier versions read them
    for split in ("validation", "test"):
        assert len(profile.held_out[split]) > 1
        with Stream(config, manifest, by_source, split) as stream:
            wanted, count = list(stream.rows()), stream.row_count
        read: list[str] = []
        with monkeypatch.context() as patch:
            for name in ("open", "get"):
                method = getattr(FileStore, name)
                patch.setattr(
                    FileStore, name, lambda self, key, _m=method, _r=read, **k: _r.append(key) or _m(self, key, **k)
                )
            with Stream(config, manifest, profile, split) as stream:
                assert stream.row_count == count == len(wanted)
                assert list(stream.rows()) == wanted
        assert read
        assert all("/out/prepare/blocks/" in key for key in read)
        for rank in range(2):
            with Stream(config, manifest, profile, split, rank=rank, world=2) as stream:
                assert list(stream.rows()) == wanted[rank::2]
