"""A torn, corrupt or foreign part is found before the first step, and the run falls back to the newest good checkpoint
unaided.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from finetune_api.exits import JobError, Reason
from finetune_trainer.checkpoint import manifest, parts
from finetune_trainer.checkpoint.digests import json_digest
from finetune_trainer.checkpoint.manifest import DamagedError
from finetune_trainer.storage import Location
from support.checkpoints import own, same, state, verify

Damage = Callable[[Location, str, random.Random], None]


def flip(out: Location, key: str, rng: random.Random) -> None:
    data = bytearray(out.get(key))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    out.put(key, bytes(data))


def truncate(out: Location, key: str, rng: random.Random) -> None:
    data = out.get(key)
    out.put(key, data[: rng.randrange(len(data))])


def lengthen(out: Location, key: str, rng: random.Random) -> None:
    out.put(key, out.get(key) + rng.randbytes(7))


def remove(out: Location, key: str, rng: random.Random) -> None:
    out.delete([key])


def zeros(out: Location, key: str, rng: random.Random) -> None:
    out.put(key, bytes(len(out.get(key))))


def of_another_step(out: Location, key: str, rng: random.Random) -> None:
    """The part that plays the same role in the checkpoint before."""
    role = key.rpartition("/")[2].partition("-")[0]
    donor = next(info.key for info in out.list("ckpt/1/10/") if info.key.rpartition("/")[2].partition("-")[0] == role)
    out.put(key, out.get(donor))


def of_the_same_step(out: Location, key: str, rng: random.Random) -> None:
    """Another part of this checkpoint."""
    out.put(key, out.get(next(info.key for info in out.list("ckpt/1/20/") if info.key != key)))


def _two(start) -> None:
    writer = start()
    writer.claim()
    writer.save(state(10), metrics={"macro-f1": 0.5}, wait=True)
    writer.save(state(20), wait=True)


@pytest.mark.parametrize("part", ["MANIFEST.json", "model-", "optimizer-", "events-"])
@pytest.mark.parametrize("damage", [flip, truncate, lengthen, remove, zeros, of_another_step, of_the_same_step])
def test_damage_to_any_file_is_found_and_the_run_falls_back(start, out: Location, part: str, damage: Damage) -> None:
    rng = random.Random(f"{part}{damage.__name__}")
    _two(start)
    key = next(info.key for info in out.list("ckpt/1/20/") if info.key.rpartition("/")[2].startswith(part))
    before = out.get(key)
    damage(out, key, rng)
    assert out.find(key) != before
    reader = start()
    resume = reader.claim().resume
    assert (resume.generation, resume.step) == (1, 10)
    assert same(reader.load(resume), state(10))
    if not (part == "MANIFEST.json" and damage is remove):  # without a manifest it never existed
        assert any("ckpt/1/20" in note and "falling back" in note for note in reader.notes)


def test_every_single_bit_flip_of_a_small_manifest_is_found(start, out: Location) -> None:
    _two(start)
    text = out.get("ckpt/1/20/MANIFEST.json")
    rng, accepted = random.Random(3), []
    for _ in range(600):
        data = bytearray(text)
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        data[at] ^= 1 << bit
        try:
            manifest.parse(bytes(data))
            accepted.append((at, bit))
        except DamagedError:
            continue
    assert accepted == []


def test_several_damaged_checkpoints_are_passed_over(start, out: Location) -> None:
    writer = start(checkpoints={"keepLast": 5})
    writer.claim()
    for step in (1, 2, 3, 4):
        writer.save(state(step), wait=True)
    for step in (2, 3, 4):
        flip(out, next(i.key for i in out.list(f"ckpt/1/{step}/") if "model-" in i.key), random.Random(step))
    reader = start()
    assert reader.claim().resume.step == 1
    assert len(reader.notes) == 3


def test_with_nothing_good_left_the_run_starts_anew_and_says_so(start, out: Location) -> None:
    _two(start)
    for step in (10, 20):
        truncate(out, f"ckpt/1/{step}/MANIFEST.json", random.Random(1))
    reader = start()
    assert reader.claim().resume is None
    assert len(reader.notes) == 2


def test_a_manifest_of_another_job_or_place_is_foreign(start, out: Location) -> None:
    _two(start)
    moved = out.get("ckpt/1/10/MANIFEST.json")
    out.put("ckpt/1/30/MANIFEST.json", moved)
    value = json.loads(out.get("ckpt/1/20/MANIFEST.json"))
    value["job_id"] = "uid-2"
    value.pop("digest")
    out.put("ckpt/1/20/MANIFEST.json", json.dumps({"digest": json_digest(value), **value}).encode())
    reader = start()
    assert reader.claim().resume.step == 10
    assert any("another job's" in note for note in reader.notes)
    assert any("step 10" in note for note in reader.notes)


def test_damage_between_choice_and_load_ends_the_rank_and_the_next_attempt_falls_back(start, out: Location) -> None:
    _two(start)
    resume = start().claim().resume
    flip(out, next(i.key for i in out.list("ckpt/1/20/") if "optimizer-" in i.key), random.Random(1))
    with pytest.raises(JobError) as caught:
        start(rank=1).load(resume)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert start(attempt=2).claim().resume.step == 10


def test_a_full_check_reads_everything_and_compares_sha_256(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(10), wait=True)
    (ref,) = (writer.latest(),)
    verify(out, ref)
    value = json.loads(out.get("ckpt/1/10/MANIFEST.json"))
    value.pop("digest")
    value["parts"][0]["sha256"] = "0" * 64  # a CRC can be forged, this cannot
    out.put("ckpt/1/10/MANIFEST.json", json.dumps({"digest": json_digest(value), **value}).encode())
    with pytest.raises(DamagedError, match="SHA-256"):
        verify(out, ref)


def test_a_part_with_other_tensors_than_listed_is_damaged(start, out: Location) -> None:
    own(out)
    writer = start()
    writer.claim()
    writer.save(state(10), wait=True)
    found = manifest.parse(out.get("ckpt/1/10/MANIFEST.json"))
    part = next(p for p in found.parts if p.namespace == "model")
    tensors = dict(part.tensors or {})
    tensors["model.layer.bias"] = ("float32", (16,))
    with pytest.raises(DamagedError, match="other tensors"):
        parts._tensors(
            parts.Part(part.name, part.namespace, part.bytes, part.crc32c, part.sha256, tensors),
            out.get(f"ckpt/1/10/{part.name}"),
        )
