"""The launcher ends with the root cause's own code, passes signals on, and gives the others the time they need."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import COMPLETE, EXITS, JobError, Reason
from finetune_api.run import RunConfig, World
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch import processes
from finetune_trainer.launch.signals import HANDLED, LauncherSignals, StopFlag
from finetune_trainer.launch.worker_end import WorkerEnd, root_cause
from support.attempts import Bench
from support.jobs import job_config
from support.models import mails, write_jsonl

CODE = {reason: entry.code for reason, entry in EXITS.items()}


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        ([WorkerEnd(0, COMPLETE, 1.0), WorkerEnd(1, COMPLETE, 2.0)], 0),
        ([WorkerEnd(0, CODE[Reason.PEER_LOST], 1.0), WorkerEnd(1, CODE[Reason.INVALID_DATA], 2.0)], 1),
        (
            [
                WorkerEnd(0, CODE[Reason.PEER_LOST], 1.0),
                WorkerEnd(1, 137, 1.5),
                WorkerEnd(2, CODE[Reason.PEER_LOST], 0.5),
            ],
            1,
        ),
        ([WorkerEnd(0, CODE[Reason.OUT_OF_MEMORY], 2.0), WorkerEnd(1, CODE[Reason.NON_FINITE_LOSS], 1.0)], 1),
        ([WorkerEnd(0, COMPLETE, 1.0), WorkerEnd(1, CODE[Reason.STORAGE_UNAVAILABLE], 9.0)], 1),
        ([WorkerEnd(0, 137, 5.0, by_us=True), WorkerEnd(1, CODE[Reason.PEER_LOST], 1.0)], 1),
        ([WorkerEnd(0, CODE[Reason.INTERRUPTED], 1.0), WorkerEnd(1, CODE[Reason.PEER_LOST], 0.5)], 0),
        ([WorkerEnd(0, CODE[Reason.INTERRUPTED], 1.0), WorkerEnd(1, CODE[Reason.INTERNAL_ERROR], 2.0)], 1),
    ],
)
def test_the_first_that_failed_by_itself_is_to_blame(ends: list[WorkerEnd], rank: int) -> None:
    assert root_cause(ends).rank == rank
    assert root_cause(ends[::-1]).code == ends[rank].code


def said(folder: Path, rank: int, reason: Reason) -> None:
    """Leave word as a worker does, and exit."""
    code = CODE[reason]
    problem = problem_for(JobError(reason, f"rank {rank} says so"), rank)
    told = {"code": code, "time": time.monotonic(), "problem": problem.to_json()}
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))
    os._exit(code or 1)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


class Pod:
    """Workers that do what a test says, under the launcher's watch."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder, self.config = folder, config
        self.signals = LauncherSignals()
        self.signals.running = True

    def watch(self, *targets: Callable[..., Any]) -> dict[int, WorkerEnd]:
        fork = multiprocessing.get_context("fork")
        workers = {rank: fork.Process(target=target, args=(self.folder,)) for rank, target in enumerate(targets)}
        for worker in workers.values():
            worker.start()
        ends = processes.watch(self.config, self.folder, dict(workers), self.signals)
        return {end.rank: end for end in ends}


@pytest.fixture
def pod(tmp_path: Path) -> Any:
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield Pod(tmp_path, job_config(tmp_path, world=World(device="cpu", processes_per_worker=2)))
    for number, handler in before.items():
        signal.signal(number, handler)


def saves_for_long(folder: Path) -> None:
    """Rank 0 of an agreed stop: it saves after its peer is gone already, and is told to stop again in the meantime."""
    stop = StopFlag().install()
    wait_for(folder / "rank-1.json")
    while not stop():
        time.sleep(0.01)
    time.sleep(0.3)
    said(folder, 0, Reason.INTERRUPTED)


def test_after_an_agreed_stop_rank_0_has_the_grace_period_to_save(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal came to another pod, so that this launcher was told nothing."""
    monkeypatch.setattr(processes, "PEER_SECONDS", 0.05)
    ends = pod.watch(saves_for_long, lambda folder: said(folder, 1, Reason.INTERRUPTED))
    assert [(ends[rank].code, ends[rank].by_us) for rank in (0, 1)] == [(CODE[Reason.INTERRUPTED], False)] * 2


def test_a_worker_that_outlives_a_failure_is_killed_and_not_blamed(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PEER_SECONDS", 0.05)

    def deaf(folder: Path) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder / "deaf").touch()
        time.sleep(60)

    def fails(folder: Path) -> None:
        wait_for(folder / "deaf")
        said(folder, 1, Reason.INVALID_DATA)

    ends = pod.watch(deaf, fails)
    assert ends[0].by_us
    end = root_cause(list(ends.values()))
    assert (end.rank, end.code) == (1, CODE[Reason.INVALID_DATA])
    assert end.problem is not None
    assert end.problem.message == "rank 1 says so"


def test_a_signal_reaches_every_worker_and_ends_as_interrupted(pod: Pod) -> None:
    def obeys(rank: int) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            stop = StopFlag().install()
            (folder / f"ready-{rank}").touch()
            while not stop():
                time.sleep(0.01)
            assert stop.signal == signal.SIGTERM
            said(folder, rank, Reason.INTERRUPTED)

        return run

    def tells(folder: Path) -> None:
        for rank in (0, 1):
            wait_for(folder / f"ready-{rank}")
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(0)

    ends = pod.watch(obeys(0), obeys(1), tells)
    assert [ends[rank].code for rank in (0, 1)] == [CODE[Reason.INTERRUPTED]] * 2


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_worker_that_leaves_without_a_word_is_never_a_success(pod: Pod, code: int) -> None:
    end = root_cause(list(pod.watch(lambda folder: os._exit(code)).values()))
    assert end.code != COMPLETE
    assert end.problem is not None
    assert f"exit code {code} and said nothing" in end.problem.message


def test_a_crash_is_told_by_its_signal(pod: Pod) -> None:
    end = root_cause(list(pod.watch(lambda folder: os.kill(os.getpid(), signal.SIGKILL)).values()))
    assert end.code == 128 + signal.SIGKILL
    assert end.problem is not None
    assert end.problem.reason is Reason.CRASHED
    assert "SIGKILL" in end.problem.message


AGAIN = """
import json, sys
from pathlib import Path
from finetune_api.base import parse
from finetune_api.run import RunConfig
from finetune_trainer.launch.launcher import launch
code = launch(parse(RunConfig, json.loads(sys.stdin.read()), local=True))
heavy = [name for name in ("torch", "transformers", "peft") if name in sys.modules]
print(json.dumps({"code": code, "heavy": heavy}))
"""


def test_a_complete_job_is_told_again_without_torch(bert: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "train.jsonl", mails(60, seed=1))
    spec = {"model": {"uri": bert.as_uri()}, "training": {"maxSteps": 2, "globalBatchSize": 8}}
    bench = Bench(
        tmp_path, spec | {"data": {"train": {"uri": f"{tmp_path.as_uri()}/data/*"}, "test": {"fraction": 0.2}}}
    )
    bench.prepare()
    report = bench.attempt()
    assert report.output is not None
    before = sorted(path for path in (tmp_path / "out").rglob("*"))
    again = bench.config(attempt=2)
    done = subprocess.run(
        [sys.executable, "-c", AGAIN], input=json.dumps(again.to_json()), capture_output=True, text=True
    )
    assert json.loads(done.stdout) == {"code": COMPLETE, "heavy": []}, done.stderr
    told = json.loads((tmp_path / "reports.jsonl").read_text().splitlines()[-1])
    assert told["attempt"] == 2
    assert told["stage"] == "finished"
    assert told["test"] == report.test
    assert json.loads((tmp_path / "termination").read_text())["exitCode"] == COMPLETE
    assert sorted(path for path in (tmp_path / "out").rglob("*")) == before
