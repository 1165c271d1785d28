"""Damaged files of every format end in rows, bad rows or a JobError with a hint; no library's own error comes out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.formats import format_of
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.scan import peek_columns
from finetune_trainer.prepare.rows.survey import survey
from finetune_trainer.stream import Cursor, Stream
from finetune_trainer.stream.sources.source import list_source
from finetune_trainer.tasks.registry import task_for
from support.jobs import job_config
from support.rows import ENDINGS, encode, profiled, rows_of

CHANGES = 40
"""Of each format; a few seconds in all."""
COLUMNS = {"text": "text", "label": "label"}


def base(ending: str) -> bytes:
    rows = rows_of(40)
    if ending.startswith("json."):
        import gzip
        import json

        return gzip.compress(json.dumps(rows).encode(), mtime=0)
    if ending == "json":
        import json

        return json.dumps(rows, indent=1).encode()
    if ending == "tsv":
        return encode(rows, "csv").replace(b",", b"\t")
    return encode(rows, ending, row_group=16)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The data with one to four changes of the kinds that happen: cut, flipped, lost, repeated, overwritten."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 200)))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:at]
        elif kind == 1 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + data[end:]
        elif kind == 3:
            data = data[:end] + data[at:]
        elif kind == 4:
            data = (
                data[:at]
                + rng.choice((b"\0", b'"', b"\r", b"\n", b"\xff", b"[" * 2000, b"\\", b"{", b"\xed\xa0\x80"))
                + data[end:]
            )
        else:
            data = data[:at] + rng.randbytes(end - at) + data[end:]
    return data


@pytest.mark.parametrize("ending", [*ENDINGS, "tsv", "json", "json.gz"])
def test_nothing_but_rows_and_job_errors_come_out_of_damaged_files(tmp_path: Path, ending: str) -> None:
    rng = random.Random(f"seed {ending}")
    whole = base(ending)
    config = job_config(tmp_path, data={"train": {"uri": f"{tmp_path.as_uri()}/data/*"}, "maxBadRows": 100_000})
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / f"a.{ending}"
    path.write_bytes(whole)
    manifest, profile = profiled(config)
    assert manifest.sources["train"].objects[0].rows == 40
    refused: list[JobError] = []
    for _ in range(CHANGES):
        path.write_bytes(damaged(whole, rng))
        kind = format_of(path.name)
        assert kind is not None
        try:
            listing = list_source(config, "train")
            peek_columns(listing.store, listing.objects[0][0], kind)
            seen = survey(listing, task_for(config.task), COLUMNS, None, BadRows(100_000), None)
            assert len(seen.prints) == seen.source.objects[0].rows
        except JobError as error:
            refused.append(error)
            continue
        if seen.usable:  # what was taken for good is read again by the workers
            with Stream(config, *profiled(config)) as stream:
                batch, _ = next(stream.batches(Cursor()))
                assert batch.size
    assert refused
    assert {error.reason for error in refused} == {Reason.INVALID_DATA}
    assert all(f"/data/a.{ending}:" in error.message and error.hint for error in refused)
    assert max(len(error.message) for error in refused) < 1000
    with Stream(config, manifest, profile) as stream, pytest.raises(JobError) as changed:
        list(stream.rows())
    assert changed.value.reason == Reason.DATA_CHANGED
