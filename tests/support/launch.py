"""Run the trainer's two steps as real processes (a launcher with its workers), forked from a server that has imported
all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from finetune_api.report import Outcome
from finetune_api.run import RunConfig

_SERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """Start the server with what processes need."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    _SERVER.set_forkserver_preload(["support.warm"])


def _step(step: str, config: str, environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from finetune_trainer.__main__ import main

    path = Path(log).with_suffix(".json")
    path.write_text(config)
    os._exit(main([step, "--config", str(path)]))


@dataclass
class Job:
    """A step that runs."""

    config: RunConfig
    process: BaseProcess
    log: Path

    def wait(self, seconds: float = 90.0) -> int:
        """The exit code, as a shell would have it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"the step did not end; its log: {self.log.read_text()}")
        return self.process.exitcode if self.process.exitcode >= 0 else 128 - self.process.exitcode

    def signal(self, number: int) -> None:
        """To the launcher only, as the kubelet does."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def workers(self) -> list[int]:
        """Pids of the launcher's children, rank by rank."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(int(pid) for pid in found)

    def kill(self) -> None:
        """SIGKILL to the whole pod at once."""
        assert self.process.pid
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join(20)

    @property
    def outcome(self) -> Outcome:
        """The termination message."""
        assert self.config.reporting.termination_file
        return Outcome.model_validate_json(Path(self.config.reporting.termination_file).read_text())


def start(step: str, config: RunConfig, environment: dict[str, str] | None = None) -> Job:
    """Start prepare or launch."""
    Path(config.scratch).mkdir(parents=True, exist_ok=True)
    log = Path(config.scratch) / f"{step}-{config.attempt}-{time.monotonic_ns()}.log"
    process = _SERVER.Process(target=_step, args=(step, json.dumps(config.to_json()), environment or {}, str(log)))
    process.start()
    return Job(config, process, log)


def run(step: str, config: RunConfig, environment: dict[str, str] | None = None) -> int:
    """Run a step to its end; the exit code. Its log is shown where it fails unexpectedly."""
    job = start(step, config, environment)
    code = job.wait()
    print(job.log.read_text())
    return code


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
    return found
