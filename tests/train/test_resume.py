"""I3: a run that is killed and goes on ends with the same losses and weights, bit for bit, as one that is not; dropout
is on.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import EXITS, Reason
from finetune_api.run import RunConfig, World
from support.jobs import job_config
from support.launch import Job, run, start, until
from support.models import mails, tiny_bert, write_jsonl

STEPS = 60
SPEC: dict[str, Any] = {
    "training": {"maxSteps": STEPS, "globalBatchSize": 12, "microBatchSize": 4, "learningRate": 1e-3},
    "evaluation": {"everySteps": 15},
    "checkpoints": {"everySteps": 5},
}
DATA = {"validation": {"fraction": 0.1}, "test": {"fraction": 0.1}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    tiny_bert(folder / "model", hidden=64, layers=4)
    write_jsonl(folder / "data" / "train.jsonl", mails(300, seed=1))
    return folder


def config(inputs: Path, folder: Path, processes: int, attempt: int = 1, **spec: Any) -> RunConfig:
    data = {"train": {"uri": f"{inputs.as_uri()}/data/*"}, **DATA}
    world = World(processes_per_worker=processes, device="cpu", threads_per_process=1, timeout_seconds=30)
    folder.mkdir(parents=True, exist_ok=True)
    return job_config(
        folder, attempt=attempt, world=world, model={"uri": (inputs / "model").as_uri()}, data=data, **(SPEC | spec)
    )


def result(folder: Path) -> tuple[list[dict[str, Any]], bytes, Any]:
    """Events without their times, the weights, the final metrics."""
    events = [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("time")
    return (
        events,
        (folder / "out" / "model.safetensors").read_bytes(),
        json.loads((folder / "out" / "metrics.json").read_text())["test"],
    )


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """The results of runs that nobody disturbs, by the number of processes."""
    found = {}
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp(f"undisturbed-{processes}")
        wanted = config(inputs, folder, processes)
        assert run("prepare", wanted) == 0
        assert run("launch", wanted) == 0
        found[processes] = result(folder)
    return found


def checkpoint_at(folder: Path, step: int) -> Any:
    return lambda: list((folder / "out" / "ckpt").glob(f"*/{step}/MANIFEST.json"))


def attempt_until(wanted: RunConfig, folder: Path, step: int) -> Job:
    job = start("launch", wanted)
    until(checkpoint_at(folder, step))
    return job


@pytest.mark.parametrize("processes", [1, 2])
def test_a_pod_killed_twice_ends_like_one_that_was_not(
    undisturbed: dict[int, Any], inputs: Path, tmp_path: Path, processes: int
) -> None:
    assert run("prepare", config(inputs, tmp_path, processes)) == 0
    attempt_until(config(inputs, tmp_path, processes, attempt=1), tmp_path, 10).kill()
    attempt_until(config(inputs, tmp_path, processes, attempt=2), tmp_path, 30).kill()
    assert not (tmp_path / "out" / "result.json").exists(), "killed too late to show anything"
    last = start("launch", config(inputs, tmp_path, processes, attempt=3))
    assert last.wait() == 0, last.log.read_text()
    assert last.outcome.resumed_from_step is not None
    assert last.outcome.resumed_from_step >= 30
    events, weights, metrics = result(tmp_path)
    assert [e["step"] for e in events if e["kind"] == "step"] == list(range(1, STEPS + 1))
    assert events == undisturbed[processes][0]
    assert weights == undisturbed[processes][1]
    assert metrics == undisturbed[processes][2]


def test_one_worker_killed_ends_the_launcher_with_its_code_and_the_run_goes_on(
    undisturbed: dict[int, Any], inputs: Path, tmp_path: Path
) -> None:
    assert run("prepare", config(inputs, tmp_path, 2)) == 0
    job = attempt_until(config(inputs, tmp_path, 2), tmp_path, 10)
    os.kill(job.workers()[1], signal.SIGKILL)
    assert job.wait() == 128 + signal.SIGKILL
    assert job.outcome.problem is not None
    assert job.outcome.problem.reason == Reason.CRASHED
    assert job.outcome.problem.rank == 1
    assert run("launch", config(inputs, tmp_path, 2, attempt=2)) == 0
    assert result(tmp_path) == undisturbed[2]


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_checkpoints_the_step_and_loses_nothing(
    undisturbed: dict[int, Any], inputs: Path, tmp_path: Path, processes: int
) -> None:
    assert run("prepare", config(inputs, tmp_path, processes)) == 0
    job = attempt_until(config(inputs, tmp_path, processes), tmp_path, 10)
    job.signal(signal.SIGTERM)
    assert job.wait() == EXITS[Reason.INTERRUPTED].code
    assert job.outcome.problem is not None
    assert job.outcome.problem.reason == Reason.INTERRUPTED
    stopped = job.outcome.step
    assert stopped is not None
    assert checkpoint_at(tmp_path, stopped)(), "the step it stopped at has a checkpoint"
    last = start("launch", config(inputs, tmp_path, processes, attempt=2))
    assert last.wait() == 0, last.log.read_text()
    assert last.outcome.resumed_from_step == stopped
    assert result(tmp_path) == undisturbed[processes]


def test_a_finished_job_is_told_again_and_not_made_again(inputs: Path, tmp_path: Path) -> None:
    wanted = config(inputs, tmp_path, 1, training={"maxSteps": 4, "globalBatchSize": 8})
    assert run("prepare", wanted) == 0
    assert run("launch", wanted) == 0
    before = result(tmp_path)
    again = start("launch", config(inputs, tmp_path, 1, attempt=2, training={"maxSteps": 4, "globalBatchSize": 8}))
    assert again.wait() == 0
    assert again.outcome.output is not None
    assert again.outcome.test
    assert result(tmp_path) == before
    assert len(list((tmp_path / "out" / "generations").iterdir())) == 1
