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
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from jobs import BATCH, LENGTH, ROOT, SEED, command, fetched, job_of, run_steps, write_rows

from finetune_api.run import RunConfig
from finetune_trainer.storage import location
from finetune_trainer.stream import Cursor, Stream, load_profile

RATE, WARM = 5e-5, 2
OURS = {"ours, 1 process": (1, 2), "ours, 2 processes": (2, 1)}
THEIRS = {"Trainer, default": "default", "Trainer, tuned": "tuned"}

Measured = dict[str, float]


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
    }
    return job_of(spec, folder, processes, threads)


def measured(times: list[float], rows: int, loss: float, began: float) -> Measured:
    """Rows a second between the warm-up's end and the last step's; the batch after it counts, the last may be
    smaller.
    """
    learned = rows - WARM * BATCH
    return {"rows_per_second": learned / (times[-1] - times[WARM - 1]), "seconds": time.time() - began, "loss": loss}


def ours(folder: Path, model: Path, rows: Path, count: int, arm: str) -> Measured:
    """Both steps of a job, as a pod runs them."""
    began = time.time()
    run_steps(config(folder, model, rows, *OURS[arm]), folder, "prepare", "launch")
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
        run_steps(first, top / "order", "prepare")
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
