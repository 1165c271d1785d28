"""Cross-validation of MiniLM on real mails: one job of ours beside one run of transformers' Trainer for each fold. One
JSON line; about 12 minutes.

    make bench NAME=folds [ARGS="--rows 400 --folds 5"]

All weights (one epoch) and the head alone (three epochs). Ours is the whole job: preparation, a round for each fold, an
answer to each row, and a last round on all rows that makes the model and its report. Theirs loads the model, tokenizes,
trains on the other folds' rows and is evaluated on the fold, in a process of its own for each; the folds are ours. Both
take batches of 32 rows cut at 128 tokens, padded to the longest of the batch, with the same optimizer, rate and
schedule, on two threads. Their rows are shuffled by their own seed. What is compared is the time of the whole commands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from jobs import BATCH, LENGTH, ROOT, SEED, command, fetched, job_of, run_steps, write_rows

from finetune_api.run import RunConfig
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile

ARMS: dict[str, dict[str, Any]] = {
    "full": {"method": {"type": "full"}, "epochs": 1, "rate": 5e-5, "target": 1.5},
    "head only": {"method": {"type": "freeze"}, "epochs": 3, "rate": 1e-3, "target": 8.0},
}


def config(folder: Path, model: Path, rows: Path, folds: int, arm: str) -> RunConfig:
    """Cross-validation as a user writes it."""
    spec = {
        "task": "text-classification",
        "model": {"uri": model.as_uri()},
        "data": {"train": {"uri": rows.as_uri()}},
        "method": ARMS[arm]["method"],
        "training": {
            "epochs": ARMS[arm]["epochs"],
            "globalBatchSize": BATCH,
            "maxLength": LENGTH,
            "learningRate": ARMS[arm]["rate"],
            "weightDecay": 0.0,
            "seed": SEED,
        },
        "evaluation": {"folds": {"count": folds}},
    }
    return job_of(spec, folder)


def ours(folder: Path, settings: RunConfig) -> dict[str, float]:
    """Both steps of the job."""
    seconds = run_steps(settings, folder, "prepare", "launch")
    found = json.loads((folder / "out" / "metrics.json").read_text())["folds"]
    return {"seconds": seconds, "accuracy": found["mean"]["accuracy"], "loss": found["mean"]["loss"]}


def in_our_folds(folder: Path, settings: RunConfig, folds: int) -> None:
    """The rows of each fold, and those outside it, as files for the others."""
    manifest, profile = load_profile(location(settings.output.uri, settings.storage))
    for fold in range(1, folds + 1):
        for split in (f"fold-{fold}", f"train-but-{fold}"):
            with Stream(settings, manifest, profile, split) as stream:
                (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stream.rows()))


def theirs(folder: Path, model: Path, folds: int, arm: str) -> dict[str, float]:
    """A run of Trainer for each fold."""
    told = []
    began = time.time()
    for fold in range(1, folds + 1):
        given = {
            "model": model,
            "train": folder / f"train-but-{fold}.jsonl",
            "held": folder / f"fold-{fold}.jsonl",
            "output": folder / f"hf-{fold}",
            "batch": BATCH,
            "length": LENGTH,
            "threads": 2,
            "seed": SEED,
            "rate": ARMS[arm]["rate"],
            "epochs": ARMS[arm]["epochs"],
            "head-only": int(arm == "head only"),
        }
        script = str(ROOT / "benchmarks" / "hf_fold.py")
        told.append(json.loads(command([script, *(f"--{k}={v}" for k, v in given.items())], folder).splitlines()[-1]))
    seconds = time.time() - began
    return {"seconds": seconds, **{name: mean(each[name] for each in told) for name in ("accuracy", "loss")}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    given = parser.parse_args()
    model, mails = fetched("minilm"), fetched("mails")
    arms = {}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        rows = top / "rows.jsonl"
        write_rows(mails, rows, given.rows)
        for arm in given.arms:
            folder = top / arm.replace(" ", "-")
            settings = config(folder, model, rows, given.folds, arm)
            mine = ours(folder, settings)
            print(f"{arm}, ours: {mine['seconds']:.0f} s", file=sys.stderr)
            in_our_folds(folder, settings, given.folds)
            other = theirs(folder, model, given.folds, arm)
            print(f"{arm}, {given.folds} runs of Trainer: {other['seconds']:.0f} s", file=sys.stderr)
            ratio, target = other["seconds"] / mine["seconds"], ARMS[arm]["target"]
            arms[arm] = {
                "ours": {name: round(value, 4) for name, value in mine.items()},
                "baselines": {"Trainer, a run for each fold": {name: round(v, 4) for name, v in other.items()}},
                "ratios": {"Trainer, a run for each fold": round(ratio, 2)},
                "target": target,
                "met": ratio >= target,
                "epochs": ARMS[arm]["epochs"],
            }
    print(
        json.dumps(
            {
                "name": "folds",
                "model": "all-MiniLM-L6-v2",
                "rows": given.rows,
                "folds": given.folds,
                "batch": BATCH,
                "length": LENGTH,
                "arms": arms,
                "versions": {each: version(each) for each in ("finetune-operator", "torch", "transformers")},
                "cores": len(os.sched_getaffinity(0)),
                "load": [round(x, 2) for x in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()
