"""What the benchmarks of training share: rows and a model of the examples, and a job's steps as a pod runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config

ROOT = Path(__file__).parent.parent
BATCH, LENGTH, SEED = 32, 128, 20260101


def fetched(name: str) -> Path:
    """A folder of examples/data.py."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.data", name], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(done.stdout.strip().splitlines()[-1])


def write_rows(mails: Path, path: Path, count: int) -> None:
    """The first so many training mails; they are shuffled."""
    import zstandard

    with (mails / "train-000.jsonl.zst").open("rb") as file, path.open("w") as out:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read().decode()
        rows = [line for line in text.split("\n") if line][:count]
        assert len(rows) == count, "the first shard has no more rows"
        out.write("\n".join(rows) + "\n")


def job_of(spec: Mapping[str, Any], folder: Path, processes: int = 1, threads: int = 2) -> RunConfig:
    """A job on this machine's CPUs; its model goes to `folder`/out."""
    return run_config(
        parse(Spec, {**spec, "output": {"uri": (folder / "out").as_uri()}}, local=True),
        job=Identity(name="bench/job", id="bench"),
        attempt=1,
        storage=StorageAccess(),
        hub=HubAccess(),
        world=World(device="cpu", processes_per_worker=processes, threads_per_process=threads),
        scratch=str(folder / "scratch"),
        reporting=Reporting(file=str(folder / "reports.jsonl"), termination_file=str(folder / "termination")),
    )


def run_steps(settings: RunConfig, folder: Path, *steps: str) -> float:
    """Run these steps of a job; the seconds that they took."""
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    run = folder / "run.json"
    run.write_text(json.dumps(settings.to_json()))
    began = time.time()
    for step in steps:
        command(["-m", "finetune_trainer", step, "--config", str(run)], folder)
    return time.time() - began


def command(arguments: list[str], folder: Path) -> str:
    """Run a command on two threads in all; what it printed. Byte code is kept, as it is on most machines: without it,
    imports take several times as long.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with (folder / "log").open("a") as log:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=kept | {"OMP_NUM_THREADS": "2"},
        )
    if done.returncode:
        raise SystemExit(f"{arguments} failed with {done.returncode}:\n{(folder / 'log').read_text()[-4000:]}")
    return done.stdout
