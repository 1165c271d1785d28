"""A checkpoint that does not fit is refused with what differs; an environment that differs is one warning, and the run
goes on.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from finetune_api.exits import JobError, Reason
from finetune_trainer.checkpoint import Checkpointer, environment
from finetune_trainer.checkpoint.compare import cpu_flags_digest
from finetune_trainer.checkpoint.digests import json_digest
from finetune_trainer.storage import Location, location
from support.checkpoints import config, own, same, state

FIELD = "spec.checkpoints.resumeFrom"
SHAPES = {name: tuple(t.shape) for name, t in state(1).tensors.items() if name.startswith("model.")}


@pytest.fixture
def donor(tmp_path: Path) -> str:
    """URI of another job's checkpoint."""
    settings = config(f"file://{tmp_path}/other", job="uid-other")
    place = location(settings.output.uri, settings.storage)
    own(place, "uid-other")
    writer = Checkpointer(
        settings, place, 0, identity={"globalBatchSize": 32, "dataManifest": "abc"}, facts={"threads": 2}
    )
    writer.claim()
    writer.save(state(40), metrics={"macro-f1": 0.7}, wait=True)
    writer.close()
    return place.uri("ckpt/1/40")


def test_a_fresh_job_goes_on_from_another_jobs_checkpoint(start, out: Location, donor: str) -> None:
    group = start(checkpoints={"resumeFrom": donor}, identity={"globalBatchSize": 32})
    generation = group.claim(SHAPES)
    assert generation.resume.uri == donor
    assert generation.resume.generation is None
    assert same(group.load(generation.resume), state(40))
    assert same(start(rank=1, checkpoints={"resumeFrom": donor}).load(generation.resume), state(40))
    assert group.listed() == ()  # it is the other job's
    assert json.loads(out.get("generations/1.json"))["source"] == donor

    group.save(state(41), wait=True)
    group.close()
    assert out.find("ckpt/1/41/MANIFEST.json") is not None
    again = start(attempt=2, checkpoints={"resumeFrom": donor})
    assert again.claim().resume.uri == out.uri("ckpt/1/41")  # its own, once there is one


def _refused(start, donor: str, **kwargs) -> JobError:
    shapes = kwargs.pop("shapes", None)
    with pytest.raises(JobError) as caught:
        start(checkpoints={"resumeFrom": donor}, **kwargs).claim(shapes)
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    assert caught.value.field == FIELD
    return caught.value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"uri": "s3://models/other"}}, ["spec.model.uri is 's3://models/other'", "'s3://models/bert'"]),
        ({"method": {"type": "lora", "lora": {"rank": 4}}}, ["spec.method.type is 'lora', the checkpoint's is 'full'"]),
        ({"task": "causal-lm"}, ["spec.task is 'causal-lm', the checkpoint's is 'text-classification'"]),
        ({"training": {"seed": 7}}, ["spec.training.seed is 7, the checkpoint's is 42"]),
        ({"identity": {"dataManifest": "xyz"}}, ["spec.data is 'xyz', the checkpoint's is 'abc'"]),
        ({"identity": {"globalBatchSize": 64}, "training": {"seed": 7}}, ["globalBatchSize is 64", "seed is 7"]),
    ],
)
def test_another_jobs_checkpoint_that_does_not_fit_is_refused_with_what_differs(
    start, donor: str, changes: dict, said: list[str]
) -> None:
    message = str(_refused(start, donor, **changes))
    assert all(part in message for part in said), message


def test_shapes_that_differ_are_named(start, donor: str) -> None:
    other = {**SHAPES, "model.layer.weight": (64, 16), "model.new": (1,)}
    other.pop("model.scale")
    message = str(_refused(start, donor, shapes=other))
    assert "model.layer.weight is [64, 16] in this model, [32, 16] there" in message
    assert "1 tensors are not in the checkpoint (model.new)" in message
    assert "1 tensors are not in this model (model.scale)" in message


def test_what_may_differ_between_jobs_does(start, donor: str) -> None:
    group = start(checkpoints={"resumeFrom": donor}, training={"epochs": 9, "learningRate": 1e-3})
    assert group.claim(SHAPES).resume.step == 40


def test_another_jobs_checkpoint_is_verified_by_sha_256(start, donor: str, tmp_path: Path) -> None:
    where = location(donor, config("file:///x").storage)
    value = json.loads(where.get("MANIFEST.json"))
    value.pop("digest")
    value["parts"][0]["sha256"] = "0" * 64
    where.put("MANIFEST.json", json.dumps({"digest": json_digest(value), **value}).encode())
    assert "SHA-256" in str(_refused(start, donor))


@pytest.mark.parametrize("uri", ["ckpt/1/41", "ckpt/1", "nowhere"])
def test_a_place_without_a_checkpoint_is_refused(start, donor: str, uri: str) -> None:
    error = _refused(start, donor.replace("ckpt/1/40", uri))
    assert "its manifest is missing" in error.message
    assert "status.checkpoints" in error.hint


def test_an_own_checkpoint_of_a_changed_job_is_refused_not_passed_over(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(4), wait=True)
    with pytest.raises(JobError) as caught:
        start(attempt=2, training={"seed": 1}).claim()
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    with pytest.raises(JobError, match=r"model\.scale"):
        start(attempt=2).claim({name: shape for name, shape in SHAPES.items() if name != "model.scale"})


def test_one_warning_names_all_that_differs_in_the_environment(
    start, out: Location, caplog: pytest.LogCaptureFixture
) -> None:
    writer = start(facts={"worldSize": 2, "threads": 1, "torch": "2.6"})
    writer.claim()
    writer.save(state(4), wait=True)
    with caplog.at_level(logging.WARNING):
        same_facts = start(facts={"worldSize": 2, "threads": 1, "torch": "2.6"})
        same_facts.claim()
    assert (same_facts.notes, caplog.messages) == ([], [])
    with caplog.at_level(logging.WARNING):
        other = start(facts={"worldSize": 4, "threads": 1, "torch": "2.7"})
        resume = other.claim().resume
    assert resume.step == 4
    assert len(caplog.messages) == 1
    assert "worldSize: 2 there, 4 here" in caplog.messages[0]
    assert "torch: '2.6' there, '2.7' here" in caplog.messages[0]
    assert "threads" not in caplog.messages[0]
    assert other.notes == caplog.messages


def test_the_environment_has_what_bits_depend_on(tmp_path: Path) -> None:
    facts = environment(world_size=2, threads=1, micro_batch=8)
    assert {"worldSize", "threads", "microBatch", "torch", "cpuFlags", "cpuCapability", "machine"} <= set(facts)
    (tmp_path / "a").write_text("processor : 0\nflags : sse avx2\n")
    (tmp_path / "b").write_text("processor : 0\nflags : avx2 sse\n")
    (tmp_path / "c").write_text("processor : 0\nflags : sse avx2 avx512f\n")
    digests = [cpu_flags_digest(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert cpu_flags_digest(tmp_path / "none") == ""
