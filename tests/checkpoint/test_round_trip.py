"""What was saved comes back bit for bit, from a folder and from S3."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from finetune_api.exits import JobError
from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer, CheckpointRef, parts
from finetune_trainer.storage import Location
from support.checkpoints import same, same_bits, state


def test_a_state_comes_back_bit_for_bit(anywhere: tuple[Location, RunConfig]) -> None:
    out, settings = anywhere
    writer = Checkpointer(settings, out, 0)
    assert writer.claim().resume is None
    writer.save(state(10), metrics={"macro-f1": 0.5})
    writer.save(state(20), wait=True)
    writer.close()

    reader = Checkpointer(settings, out, 0)
    resume = reader.claim().resume
    assert resume is not None
    assert (resume.generation, resume.step) == (1, 20)
    assert same(reader.load(resume), state(20))
    assert same(reader.load(resume), state(20))  # the first was kept from the claim, the second is read anew


def test_another_rank_loads_what_rank_0_chose(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(3), metrics={"macro-f1": 0.25, "loss": 1.5}, wait=True)
    resume = start().claim().resume
    told = CheckpointRef.from_json(json.loads(json.dumps(resume.to_json())))
    assert told == resume
    assert same(start(rank=1).load(told), state(3))


def test_another_rank_reads_ahead_what_rank_0_will_choose(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(3), wait=True)
    ref = start().claim().resume
    other = start(rank=1)
    other.read_ahead()
    out.delete([info.key for info in out.list("ckpt/")])
    assert same(other.load(ref), state(3))


def test_what_was_read_ahead_in_vain_is_not_used(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(3), wait=True)
    older = writer.latest()
    writer.save(state(4), wait=True)
    other = start(rank=1)
    other.read_ahead()
    assert same(other.load(older), state(3))


def test_nothing_that_fails_while_reading_ahead_matters(start, out: Location) -> None:
    start(rank=1).read_ahead()  # nothing is there yet
    writer = start()
    writer.claim()
    writer.save(state(3), wait=True)
    ref = start().claim().resume
    out.put(next(info.key for info in out.list("ckpt/") if "model-" in info.key), b"damaged")
    other = start(rank=1)
    other.read_ahead()
    with pytest.raises(JobError, match="is damaged now"):
        other.load(ref)


def test_other_ranks_never_write(start, out: Location) -> None:
    other = start(rank=1)
    other.save(state(5), wait=True)
    other.close()
    assert [info.key for info in out.list()] == ["job.json"]


def test_one_namespace_is_loaded_without_reading_the_others(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(3), wait=True)
    (ref,) = [writer.best() or writer.latest()]
    out.delete(info.key for info in out.list("ckpt/") if "optimizer-" in info.key or "events-" in info.key)
    loaded = start(rank=1).load(ref, only="model.")
    assert set(loaded.tensors) == {name for name in state(3).tensors if name.startswith("model.")}
    assert all(same_bits(tensor, state(3).tensors[name]) for name, tensor in loaded.tensors.items())


def test_training_on_does_not_reach_into_a_save_in_flight(start, out: Location) -> None:
    writer = start()
    writer.claim()
    live = state(7)
    live.meta["list"] = [1]
    writer.save(live)
    for tensor in live.tensors.values():
        tensor.zero_()
    live.meta["list"].append(2)
    live.cursor["row"] = 0
    writer.close()
    reader = start()
    found = reader.load(reader.claim().resume)
    expected = state(7)
    expected.meta["list"] = [1]
    assert same(found, expected)


def test_large_states_are_split_into_parts_of_one_namespace_each() -> None:
    tensors = {f"{space}.{i}": torch.full((100,), float(i)) for i in range(10) for space in ("model", "optimizer")}
    packed = [
        part for part, _ in parts.pack(dataclasses.replace(state(1), tensors=tensors, blobs={}), "w", part_bytes=1000)
    ]
    assert [len(part.tensors or {}) for part in packed] == [2] * 10
    assert all({name.partition(".")[0] for name in part.tensors or {}} == {part.namespace} for part in packed)
    assert len({part.name for part in packed}) == 10


def test_nothing_in_a_checkpoint_is_a_pickle(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(3), wait=True)
    for info in out.list("ckpt/"):
        data = out.get(info.key)
        assert not data.startswith((b"\x80", b"PK")), info.key  # a pickle, torch's zip


def test_tied_weights_are_saved_as_copies_and_may_be_tied_again(start, out: Location) -> None:
    writer = start()
    writer.claim()
    shared = torch.randn(4, 4)
    tied = dataclasses.replace(state(1), tensors={"model.a": shared, "model.b": shared, "model.c": shared[0]})
    writer.save(tied, wait=True)
    reader = start()
    found = reader.load(reader.claim().resume).tensors
    assert torch.equal(found["model.a"], shared)
    assert torch.equal(found["model.b"], shared)
    assert torch.equal(found["model.c"], shared[0])


def test_state_that_is_not_json_is_refused_in_the_callers_thread(start) -> None:
    writer = start()
    writer.claim()
    with pytest.raises(TypeError):
        writer.save(dataclasses.replace(state(1), meta={"tensor": torch.zeros(1)}))
