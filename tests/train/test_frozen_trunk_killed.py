"""I3 with rows kept: killed while the frozen part is computed, and in training, a run ends as if nobody had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import RunConfig, World
from finetune_trainer.train.frozen_trunk import FOLDER
from support.jobs import job_config
from support.launch import run, start, until
from support.models import mails, tiny_bert, write_jsonl

SPEC: dict[str, Any] = {
    "method": {"type": "freeze", "freeze": {"lastLayers": 1}},
    "training": {"maxSteps": 10, "globalBatchSize": 64, "microBatchSize": 4, "learningRate": 1e-3},
    "checkpoints": {"everySteps": 2},
}
CHUNKS = 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    tiny_bert(folder / "model", hidden=64, layers=4)
    write_jsonl(folder / "data" / "train.jsonl", mails(560, seed=1, words=(3, 8)))
    return folder


def config(inputs: Path, folder: Path, processes: int, attempt: int = 1) -> RunConfig:
    data = {"train": {"uri": f"{inputs.as_uri()}/data/*"}}
    world = World(processes_per_worker=processes, device="cpu", threads_per_process=1, timeout_seconds=30)
    folder.mkdir(parents=True, exist_ok=True)
    model = {"uri": (inputs / "model").as_uri()}
    return job_config(folder, attempt=attempt, world=world, model=model, data=data, **SPEC)


def chunks(folder: Path) -> dict[str, bytes]:
    """What they hold, behind the line with the key of the job."""
    found = {path.name: path.read_bytes() for path in (folder / "scratch" / FOLDER).glob("*/*.chunk")}
    return {name: content.partition(b"\n")[2] for name, content in found.items()}


def test_a_pod_killed_while_it_fills_and_while_it_trains_ends_like_one_that_was_not(
    inputs: Path, tmp_path: Path
) -> None:
    alone, whole, killed = (tmp_path / name for name in ("alone", "whole", "killed"))
    for folder, processes in ((alone, 1), (whole, 2), (killed, 2)):
        assert run("prepare", config(inputs, folder, processes)) == 0
    assert run("launch", config(inputs, whole, 2)) == 0
    job = start("launch", config(inputs, alone, 1))
    until(lambda: len(chunks(alone)) == CHUNKS)
    job.kill()
    assert chunks(whole) == chunks(alone), "what is kept does not hang on the number of processes"
    job = start("launch", config(inputs, killed, 2))
    until(lambda: chunks(killed))
    job.kill()
    assert len(chunks(killed)) < CHUNKS, "killed too late to show anything"
    job = start("launch", config(inputs, killed, 2, attempt=2))
    until(lambda: list((killed / "out" / "ckpt").glob("*/2/MANIFEST.json")))
    job.kill()
    next(iter((killed / "scratch" / FOLDER).glob("*/train-000001.chunk"))).unlink()
    assert not (killed / "out" / "result.json").exists(), "killed too late to show anything"
    last = start("launch", config(inputs, killed, 2, attempt=3))
    assert last.wait() == 0, last.log.read_text()
    assert last.outcome.resumed_from_step is not None
    assert last.outcome.resumed_from_step >= 2
    assert chunks(killed) == chunks(whole)
    assert (killed / "out" / "model.safetensors").read_bytes() == (whole / "out" / "model.safetensors").read_bytes()
