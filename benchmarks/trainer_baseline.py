"""Rows a second of MiniLM's full tuning on real mails: our trainer beside transformers' Trainer. One JSON line; about 5
minutes.

    make bench NAME=trainer_baseline [ARGS="--rows 384 --rounds 2"]

All arms take the same rows in the same order (that of our stream), in batches of 32 rows cut at 128 tokens, with the
same optimizer, rate and schedule, on the same two threads (or two processes of one). Rounds run in alternating order.
Rates are over the steps after the first two; `seconds` are those of the whole commands, imports, preparation and saving
included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config
from finetune_trainer.storage import location
from finetune_trainer.stream import Cursor, Stream, load_profile

ROOT = Path(__file__).parent.parent
BATCH, LENGTH, RATE, SEED, WARM = 32, 128, 5e-5, 20260101, 2
OURS = {"ours, 1 process": (1, 2), "ours, 2 processes": (2, 1)}
THEIRS = {"Trainer, default": "default", "Trainer, tuned": "tuned"}

Measured = dict[str, float]


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


def config(folder: Path, model: Path, rows: Path, processes: int, threads: int) -> RunConfig:
    """One epoch of full tuning, as a user writes it, and nothing beside the training."""
    spec = {
        "task": "text-classification",
        "model": {"uri": model.as_uri()},
        "data": {"train": {"uri": rows.as_uri()}},
        "training": {
            "epochs": 1,
            "globalBatchSize": BATCH,
            "maxLength": LENGTH,
            "learningRate": RATE,
            "weightDecay": 0.0,
            "seed": SEED,
        },
        "checkpoints": {"everySteps": 1_000_000},
        "output": {"uri": (folder / "out").as_uri()},
    }
    return run_config(
        parse(Spec, spec, local=True),
        job=Identity(name="bench/trainer", id="bench"),
        attempt=1,
        storage=StorageAccess(),
        hub=HubAccess(),
        world=World(device="cpu", processes_per_worker=processes, threads_per_process=threads),
        scratch=str(folder / "scratch"),
        reporting=Reporting(file=str(folder / "reports.jsonl"), termination_file=str(folder / "termination")),
    )


def command(arguments: list[str], folder: Path) -> str:
    """Run a command on two threads in all; what it printed."""
    with (folder / "log").open("a") as log:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )
    if done.returncode:
        raise SystemExit(f"{arguments} failed with {done.returncode}:\n{(folder / 'log').read_text()[-4000:]}")
    return done.stdout


def measured(times: list[float], rows: int, loss: float, began: float) -> Measured:
    """Rows a second between the warm-up's end and the last step's; the batch after it counts, the last may be
    smaller.
    """
    learned = rows - WARM * BATCH
    return {"rows_per_second": learned / (times[-1] - times[WARM - 1]), "seconds": time.time() - began, "loss": loss}


def ours(folder: Path, model: Path, rows: Path, count: int, arm: str) -> Measured:
    """Both steps of a job, as a pod runs them."""
    (folder / "scratch").mkdir(parents=True)
    run, settings = folder / "run.json", config(folder, model, rows, *OURS[arm])
    run.write_text(json.dumps(settings.to_json()))
    began = time.time()
    for step in ("prepare", "launch"):
        command(["-m", "finetune_trainer", step, "--config", str(run)], folder)
    events = [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["kind"] == "step"]
    return measured([step["time"] for step in steps], count, mean(step["loss"] for step in steps), began)


def in_our_order(folder: Path, settings: RunConfig) -> tuple[Path, int]:
    """The rows as our stream gives them, for the others, and our steps of warm-up."""
    manifest, profile = load_profile(location(settings.output.uri, settings.storage))
    path, steps = folder / "ordered.jsonl", profile.resolved.total_steps or 0
    with Stream(settings, manifest, profile, split="train") as stream, path.open("w") as out:
        for batch, _ in islice(stream.batches(Cursor()), steps):
            out.writelines(json.dumps(row) + "\n" for row in batch.rows)
    return path, profile.resolved.warmup_steps or 0


def theirs(folder: Path, model: Path, ordered: tuple[Path, int], count: int, arm: str) -> Measured:
    """transformers' Trainer in a process of its own."""
    folder.mkdir(parents=True)
    settings = {
        "model": model,
        "rows": ordered[0],
        "output": folder / "out",
        "batch": BATCH,
        "length": LENGTH,
        "threads": 2,
        "seed": SEED,
        "rate": RATE,
        "warmup": ordered[1],
        "kind": THEIRS[arm],
    }
    began = time.time()
    told = command([str(ROOT / "benchmarks" / "hf_trainer.py"), *(f"--{k}={v}" for k, v in settings.items())], folder)
    found = json.loads(told.strip().splitlines()[-1])
    return measured(found["times"], count, found["loss"], began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    if given.rows <= (WARM + 1) * BATCH:
        parser.error(f"--rows must be more than {(WARM + 1) * BATCH}: the first {WARM} batches of {BATCH} are warm-up")
    model, mails = fetched("minilm"), fetched("mails")
    found: dict[str, list[Measured]] = {arm: [] for arm in (*OURS, *THEIRS)}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        rows = top / "rows.jsonl"
        write_rows(mails, rows, given.rows)
        first = config(top / "order", model, rows, 1, 2)
        (top / "order" / "scratch").mkdir(parents=True)
        (top / "order" / "run.json").write_text(json.dumps(first.to_json()))
        command(["-m", "finetune_trainer", "prepare", "--config", str(top / "order" / "run.json")], top / "order")
        ordered = in_our_order(top / "order", first)
        for turn in range(given.rounds):
            arms = list(found) if turn % 2 == 0 else list(found)[::-1]
            for arm in arms:
                folder = top / f"{turn}-{list(found).index(arm)}"
                result = (
                    ours(folder, model, rows, given.rows, arm)
                    if arm in OURS
                    else theirs(folder, model, ordered, given.rows, arm)
                )
                found[arm].append(result)
                print(
                    f"round {turn + 1}, {arm}: {result['rows_per_second']:.1f} rows/s, {result['seconds']:.0f} s"
                    " in all",
                    file=sys.stderr,
                )
    print(json.dumps(summary(found, given.rows)))


def summary(found: dict[str, list[Measured]], rows: int) -> dict[str, Any]:
    """Means over the rounds, and our rates over theirs."""
    arms = {
        arm: {name: round(mean(r[name] for r in results), 4) for name in results[0]} for arm, results in found.items()
    }
    rates = {arm: values["rows_per_second"] for arm, values in arms.items()}
    ratios = {f"{mine} / {other}": round(rates[mine] / rates[other], 3) for mine in OURS for other in THEIRS}
    return {
        "benchmark": "trainer_baseline",
        "model": "all-MiniLM-L6-v2",
        "rows": rows,
        "batch": BATCH,
        "length": LENGTH,
        "rounds": len(next(iter(found.values()))),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 2) for x in os.getloadavg()],
        "arms": arms,
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
