"""What writers that were killed in mid-upload leave behind is found and freed by the next group; never what others
write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer
from finetune_trainer.prepare.checks.output_owner import sweep_output
from finetune_trainer.storage import Location, Unfinished, location
from finetune_trainer.storage.file import TEMPORARY
from support.checkpoints import state
from support.s3 import S3Server


def begin(out: Location, key: str) -> None:
    """As a writer that is killed before its upload ends."""
    store: Any = out.store
    if out.uri().startswith("s3://"):
        store.bucket.client.create_multipart_upload(Bucket=store.bucket.name, Key=out.prefix + key)
    else:
        torn = Path(f"/{out.prefix}{key}").with_name(f"{TEMPORARY}{Path(key).name}")
        torn.parent.mkdir(parents=True, exist_ok=True)
        torn.write_bytes(b"torn")


def left(out: Location) -> list[str]:
    """Their keys, as of a store that knows them."""
    found = [
        u.key + u.upload.removeprefix(TEMPORARY) if u.key.endswith("/") or not u.key else u.key
        for u in out.unfinished()
    ]
    return sorted(found)


def test_uploads_of_killed_writers_are_aborted_by_the_next_group(anywhere: tuple[Location, RunConfig]) -> None:
    out, settings = anywhere
    first = Checkpointer(settings, out, 0)
    first.claim()
    first.save(state(1), wait=True)
    dead = ["ckpt/1/1/optimizer-00001-dead.safetensors", "ckpt/1/2/model-00000-dead.safetensors", "model.safetensors"]
    for key in dead:
        begin(out, key)
    beside = Location(out.store, out.prefix.rstrip("/") + "-beside/")  # another job's output
    begin(beside, "ckpt/1/1/model-00000-other.safetensors")
    assert left(out) == dead
    second = Checkpointer(settings, out, 0)
    second.claim()
    assert left(out) == dead  # nothing is touched before the new group has saved
    later = ["ckpt/9/7/model-00000-later.safetensors", "report.html"]  # of a newer group, or begun after the claim
    for key in later:
        begin(out, key)
    second.save(state(2), wait=True)
    assert left(out) == later
    assert len(left(beside)) == 1
    assert [c.step for c in second.listed()] == [2, 1]


def test_a_new_owner_frees_what_the_job_before_left(anywhere: tuple[Location, RunConfig]) -> None:
    out, _ = anywhere
    begin(out, "ckpt/1/2/model-00000-dead.safetensors")
    begin(out, "model.safetensors")
    sweep_output(out)
    assert left(out) == []


def test_a_store_that_does_not_tell_of_uploads_harms_nothing(s3: S3Server, s3_credentials: None) -> None:
    place = location("s3://no-such-bucket-here/x", s3.access, patience=0.2)
    assert list(place.unfinished()) == []
    place.discard([Unfinished("a", "none")])


def test_a_failed_upload_is_aborted(s3: S3Server, s3_credentials: None) -> None:
    place = location(f"s3://{s3.bucket()}/x", s3.access)

    def read(start: int, end: int) -> bytes:
        if start:
            raise ValueError("the source broke")
        return bytes(end - start)

    with pytest.raises(ValueError, match="broke"):
        place.put_from("k", 40 << 20, read)
    assert list(place.unfinished()) == []
