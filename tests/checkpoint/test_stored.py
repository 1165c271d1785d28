"""A checkpoint that an earlier version stored is read by today's, which goes on from it as that version did."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import zstandard

from finetune_api.exits import Reason
from finetune_trainer.checkpoint import Checkpointer, CheckpointRef, environment
from finetune_trainer.checkpoint.compare import differences
from finetune_trainer.storage import location
from finetune_trainer.stream import Cursor
from finetune_trainer.stream.order import mix
from finetune_trainer.stream.parts import PARTS_KEY, TEST, TRAIN, VALIDATION, digest_of
from finetune_trainer.stream.profile import PROFILE_KEY
from finetune_trainer.train.state import TrainState
from support.attempts import Bench
from support.checkpoints import same_bits
from support.s3 import S3Server, s3, s3_credentials

__all__ = ["s3", "s3_credentials"]

STORED = Path(__file__).parent / "stored"
BUCKET = "stored"  # URIs are part of what must match, so the bucket has the name that it had
CHECKPOINT = STORED / "out" / "ckpt" / "1" / "6"
MANIFEST = json.loads((CHECKPOINT / "MANIFEST.json").read_text())
EXPECTED = json.loads((STORED / "expected.json").read_text())
SPEC: dict[str, Any] = {
    "task": "causal-lm",
    "model": {"uri": f"s3://{BUCKET}/model"},
    "data": {"train": {"uri": f"s3://{BUCKET}/data/*"}, "validation": {"fraction": 0.2}, "test": {"fraction": 0.2}},
    "output": {"uri": f"s3://{BUCKET}/out"},
    "training": {"maxSteps": 12, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 0.003, "maxLength": 48},
    "evaluation": {"everySteps": 3},
    "checkpoints": {"everySteps": 3, "keepLast": 1},
}


def as_parts(profile: bytes) -> tuple[bytes, bytes]:
    """The profile and the parts, which that version did not write down: it held rows out by a hash of their place."""
    rows = len((STORED / "data" / "train.jsonl").read_bytes().splitlines())
    at = (mix(np.arange(rows), 0x66696E6574756E65_6F70657261746F72) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    parts = np.select([at < 0.2, at < 0.4], [VALIDATION, TEST], TRAIN).astype(np.uint8)
    plain = {**json.loads(profile), "parts": digest_of(parts)}
    return json.dumps(plain).encode(), zstandard.compress(parts.tobytes())


@pytest.fixture
def bench(tmp_path: Path, s3: S3Server, s3_credentials: None) -> Bench:
    """The job, its bucket as the earlier version left it."""
    with contextlib.suppress(s3.client.exceptions.BucketAlreadyOwnedByYou):
        s3.client.create_bucket(Bucket=BUCKET)
    for found in s3.client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        s3.client.delete_object(Bucket=BUCKET, Key=found["Key"])
    for path in (path for name in ("data", "model", "out") for path in (STORED / name).rglob("*")):
        if path.is_file():
            s3.client.put_object(Bucket=BUCKET, Key=str(path.relative_to(STORED)), Body=path.read_bytes())
    return Bench(tmp_path, {**SPEC, "storage": s3.access})


def found_checkpoint(bench: Bench) -> tuple[Checkpointer, CheckpointRef]:
    config = bench.config(attempt=2)
    identity = {name: MANIFEST["identity"][name] for name in ("dataManifest", "globalBatchSize")}
    checkpoints = Checkpointer(config, location(config.output.uri, config.storage), 0, identity=identity)
    found = checkpoints.claim().resume
    assert found is not None
    return checkpoints, found


def test_all_of_the_state_is_read_as_it_was_written(bench: Bench) -> None:
    checkpoints, found = found_checkpoint(bench)
    assert (found.generation, found.step, found.digest) == (1, 6, MANIFEST["digest"])
    snapshot = checkpoints.load(found)
    written: dict[str, torch.Tensor] = {}
    for path in CHECKPOINT.glob("*.safetensors"):
        written |= safetensors.torch.load_file(path)
    assert set(snapshot.tensors) == set(written)
    assert len(written) > 40
    assert all(same_bits(tensor, written[name]) for name, tensor in snapshot.tensors.items())
    assert snapshot.blobs["events"] == next(CHECKPOINT.glob("events-*.bin")).read_bytes()
    state, stored = TrainState.restored(snapshot), MANIFEST["meta"]["run"]
    assert (state.step, state.cursor) == (6, Cursor(step=6, epoch=1, row=8))
    assert state.skipped_rows == stored["dropped"] == {"train": 6, "validation": 1}
    assert state.best is not None
    assert state.best.to_json() == stored["best"]
    assert state.meta() == stored, "written as it was read"


def test_rows_that_were_held_out_by_their_place_are_never_mixed_with_others(bench: Bench) -> None:
    error = bench.failing(2)
    assert error.reason is Reason.CHECKPOINT_MISMATCH
    assert "prepared by an earlier version, which held out other rows" in error.message


def test_the_run_goes_on_as_that_version_did(bench: Bench, s3: S3Server) -> None:
    """Bit for bit where CPU and libraries are the same; else within what rounding makes of it."""
    written = as_parts((STORED / "out" / PROFILE_KEY).read_bytes())
    for key, body in zip((PROFILE_KEY, PARTS_KEY), written, strict=True):
        s3.client.put_object(Bucket=BUCKET, Key=f"out/{key}", Body=body)
    report = bench.attempt(2)
    assert report.resumed_from_step == 6

    def output(name: str) -> bytes:
        return s3.client.get_object(Bucket=BUCKET, Key=f"out/{name}")["Body"].read()

    events = [json.loads(line) for line in output("events.jsonl").splitlines()]
    assert [event["step"] for event in events if event["kind"] == "step"] == list(range(1, 13))
    events = [{name: value for name, value in event.items() if name != "time"} for event in events]
    test, weights = json.loads(output("metrics.json"))["test"], output("model.safetensors")
    facts = environment(world_size=1, threads=1, micro_batch=4)
    if not differences(MANIFEST["facts"], facts):
        assert events == EXPECTED["events"]
        assert test == EXPECTED["test"]
        assert hashlib.sha256(weights).hexdigest() == EXPECTED["weights_sha256"]
    for event, expected in zip(events, EXPECTED["events"], strict=True):
        assert event.pop("kind") == expected.pop("kind")
        assert event == pytest.approx(expected, rel=1e-6)
    assert test == pytest.approx(EXPECTED["test"], rel=1e-6)
    final = safetensors.torch.load(weights)
    for name, tensor in safetensors.torch.load_file(STORED / "final.safetensors").items():
        torch.testing.assert_close(final[name], tensor, rtol=0, atol=1e-6)
