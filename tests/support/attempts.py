"""Attempts of a job with one process, in this process: quick, and open to faults that a test plants at an exact
place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.exits import COMPLETE, JobError
from finetune_api.report import Report
from finetune_api.run import RunConfig, World
from finetune_trainer import prepare
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.launch.warm_up import warm_up
from finetune_trainer.report.outcome import load_snapshot
from finetune_trainer.train.worker import run_worker
from support.jobs import job_config
from support.order import same_order

ALONE = World(device="cpu", threads_per_process=1)


@dataclass
class Flag:
    """A stop that a test gives."""

    up: bool = False

    def __call__(self) -> bool:
        return self.up


@dataclass
class Bench:
    """A job in a folder: `spec` as its user writes it."""

    folder: Path
    spec: dict[str, Any]

    def config(self, attempt: int = 1) -> RunConfig:
        return job_config(self.folder, attempt=attempt, world=ALONE, **self.spec)

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with same_order():
            assert prepare.main(self.config()) == COMPLETE, (self.folder / "termination").read_text()

    def attempt(self, number: int = 1, stop: Callable[[], bool] = lambda: False) -> Report:
        """Train; the last snapshot. Raises what the run ends with."""
        config, folder = self.config(number), self.folder / f"attempt-{number}"
        folder.mkdir(parents=True)
        Path(config.scratch).mkdir(exist_ok=True)
        run_worker(config, RankInfo(), warm_up(config), folder, time.monotonic(), stop)
        return self.snapshot(number)

    def failing(self, number: int = 1, stop: Callable[[], bool] = lambda: False) -> JobError:
        """What an attempt that must fail raises."""
        try:
            self.attempt(number, stop)
        except JobError as error:
            return error
        raise AssertionError("the attempt did not fail")

    def snapshot(self, number: int = 1) -> Report:
        found = load_snapshot(self.folder / f"attempt-{number}" / "snapshot.json")
        assert found is not None
        return found

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Events of the output, without their times."""
        lines = (self.folder / "out" / "events.jsonl").read_text().splitlines()
        found = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]
        return [event for event in found if kind in (None, event["kind"])]

    def weights(self, name: str = "model.safetensors") -> bytes:
        return (self.folder / "out" / name).read_bytes()

    def metrics(self) -> dict[str, Any]:
        """metrics.json of the output."""
        return json.loads((self.folder / "out" / "metrics.json").read_text())
