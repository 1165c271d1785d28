"""I3 where a row gives several examples, of which each is a part of one loss: a killed run ends as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_api.run import RunConfig, World
from support.jobs import job_config
from support.launch import run, start, until
from support.models import questions, tiny_bert, write_jsonl

STEPS = 16
HELD_OUT: dict[str, Any] = {"validation": {"fraction": 0.2}, "test": {"fraction": 0.2}}


def config(inputs: Path, folder: Path, attempt: int = 1) -> RunConfig:
    folder.mkdir(parents=True, exist_ok=True)
    return job_config(
        folder,
        attempt=attempt,
        task="question-answering",
        model={"uri": (inputs / "model").as_uri()},
        data={"train": {"uri": f"{inputs.as_uri()}/data/*"}, **HELD_OUT},
        training={"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-3, "maxLength": 40},
        evaluation={"everySteps": 8},
        checkpoints={"everySteps": 2},
        world=World(processes_per_worker=2, device="cpu", threads_per_process=1, timeout_seconds=60),
    )


def result(folder: Path) -> tuple[list[dict[str, Any]], bytes, Any, str]:
    """Events without their times, the weights, the final metrics, and what was decided."""
    out = folder / "out"
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("time")
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    return events, (out / "model.safetensors").read_bytes(), metrics, (out / "task.json").read_text()


def test_two_ranks_killed_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "model", hidden=64, layers=4)
    write_jsonl(tmp_path / "data" / "train.jsonl", questions(120, seed=1, words=(10, 50)))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        assert run("prepare", config(tmp_path, folder)) == 0
    assert run("launch", config(tmp_path, whole)) == 0
    job = start("launch", config(tmp_path, broken))
    until(lambda: list((broken / "out" / "ckpt").glob("*/4/MANIFEST.json")))
    job.kill()
    assert not (broken / "out" / "result.json").exists(), "killed too late to show anything"
    last = start("launch", config(tmp_path, broken, attempt=2))
    assert last.wait() == 0, last.log.read_text()
    assert (last.outcome.resumed_from_step or 0) >= 4
    assert result(broken) == result(whole)
