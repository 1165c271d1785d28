"""What running the frozen part of a model once a row spares: our trainer beside transformers' Trainer with the same
layers frozen, and beside features computed once with datasets.map. One JSON line; about 5 minutes.

    make bench NAME=frozen_trunk [ARGS="--rows 256 --rounds 1"]

MiniLM on real mails, in batches of 32 rows cut at 128 tokens, on the same two threads. `seconds` are those from the
first row that is read to the end of the last step: of ours the frozen part, waiting for rows and the steps; of the
others tokenizing and the steps. Loading and saving are in none. The Trainer keeps dropout in frozen layers, so that its
losses are those of noisier inputs; ours run as in an evaluation.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from jobs import BATCH, LENGTH, ROOT, SEED, command, fetched, job_of, run_steps, write_rows

from finetune_api.run import RunConfig

RATE = 1e-3
HEAD = "bert.pooler,classifier"
ARMS: dict[str, tuple[dict[str, Any], int, str]] = {
    "head, 3 epochs": ({"type": "freeze"}, 3, HEAD),
    "head, 10 epochs": ({"type": "freeze"}, 10, HEAD),
    "last layer, 3 epochs": ({"type": "freeze", "freeze": {"lastLayers": 1}}, 3, f"{HEAD},bert.encoder.layer.5"),
    "features, 10 epochs": ({"type": "features", "features": {"pooling": "mean", "head": "linear"}}, 10, ""),
}
"""Our method, the epochs, and what the Trainer trains; nothing: the other side is datasets.map."""
TARGETS = {
    "head, 3 epochs": 0.8 * 3,
    "head, 10 epochs": 0.8 * 10,
    "last layer, 3 epochs": 1.5,
    "features, 10 epochs": 1,
}

Measured = dict[str, float]


def config(folder: Path, model: Path, rows: Path, arm: str) -> RunConfig:
    """As a user writes it, and nothing beside the training."""
    method, epochs, _ = ARMS[arm]
    spec = {
        "task": "text-classification",
        "model": {"uri": model.as_uri()},
        "data": {"train": {"uri": rows.as_uri()}},
        "method": method,
        "training": {
            "epochs": epochs,
            "globalBatchSize": BATCH,
            "maxLength": LENGTH,
            "learningRate": RATE,
            "schedule": "constant",
            "warmupRatio": 0.0,
            "weightDecay": 0.0,
            "seed": SEED,
        },
        "checkpoints": {"everySteps": 1_000_000},
    }
    return job_of(spec, folder)


def ours(folder: Path, model: Path, rows: Path, arm: str) -> Measured:
    """Both steps of a job, as a pod runs them."""
    run_steps(config(folder, model, rows, arm), folder, "prepare", "launch")
    report = json.loads((folder / "reports.jsonl").read_text().splitlines()[-1])
    assert report["resolved"].get("frozenTrunk"), "nothing was kept"
    events = [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["kind"] == "step"]
    seconds = sum(report["seconds"].get(cause, 0.0) for cause in ("frozen trunk", "data", "train"))
    return {"seconds": seconds, "loss": mean(losses)}


def theirs(folder: Path, model: Path, rows: Path, arm: str) -> Measured:
    """The other side, in a process of its own."""
    _, epochs, trained = ARMS[arm]
    folder.mkdir(parents=True)
    settings: dict[str, Any] = {
        "model": model,
        "rows": rows,
        "output": folder / "out",
        "batch": BATCH,
        "length": LENGTH,
        "threads": 2,
        "seed": SEED,
        "rate": RATE,
        "epochs": epochs,
    }
    if trained:
        settings |= {"warmup": 0, "kind": "tuned", "trained": trained}
    script = "hf_trainer.py" if trained else "hf_features.py"
    told = command([str(ROOT / "benchmarks" / script), *(f"--{k}={v}" for k, v in settings.items())], folder)
    found = json.loads(told.strip().splitlines()[-1])
    return {"seconds": found["seconds"], "loss": found["loss"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    model, mails = fetched("minilm"), fetched("mails")
    found: dict[str, dict[str, list[Measured]]] = {arm: {"ours": [], "theirs": []} for arm in ARMS}
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name) / "rows.jsonl"
        write_rows(mails, rows, given.rows)
        for turn in range(given.rounds):
            for number, arm in enumerate(ARMS):
                sides = {"ours": ours, "theirs": theirs}
                for side in list(sides)[:: -1 if (turn + number) % 2 else 1]:
                    result = sides[side](Path(name) / f"{turn}-{number}-{side}", model, rows, arm)
                    found[arm][side].append(result)
                    print(f"round {turn + 1}, {arm}, {side}: {result['seconds']:.1f} s", file=sys.stderr)
    print(json.dumps(summary(found, given.rows)))


def summary(found: dict[str, dict[str, list[Measured]]], rows: int) -> dict[str, Any]:
    """Means over the rounds, and how many times faster ours is."""

    def side(name: str) -> dict[str, Measured]:
        return {
            arm: {key: round(mean(r[key] for r in sides[name]), 4) for key in ("seconds", "loss")}
            for arm, sides in found.items()
        }

    own, others = side("ours"), side("theirs")
    ratios = {arm: round(others[arm]["seconds"] / own[arm]["seconds"], 2) for arm in found}
    return {
        "name": "frozen_trunk",
        "model": "all-MiniLM-L6-v2",
        "rows": rows,
        "batch": BATCH,
        "length": LENGTH,
        "ours": own,
        "baselines": others,
        "ratios": ratios,
        "target": TARGETS,
        "met": {arm: ratio >= TARGETS[arm] for arm, ratio in ratios.items()},
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "datasets")},
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
