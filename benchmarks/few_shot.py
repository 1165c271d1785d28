"""Few labelled rows: comparing them (method setfit) beside tuning every weight, and beside a logistic regression on the
model as it is. Real mails, MiniLM; a JSON line for each number of rows a class. About half an hour on two quiet cores.

    make bench NAME=few_shot [ARGS="--per-class 8 --seeds 5 --arms setfit,full,frozen --set sentiment"]

All of it goes through our own trainer: the same drawn rows, cut at 128 tokens (of a mail, the beginning), the same
held-out rows. A seed draws rows, their order and the new head; `spread` is the standard deviation over seeds. Nothing
is chosen by held-out rows: the weights are those of the last step. Tuning every weight has 30 passes, ten times its
default, beside what it comes to by default; all else is each method's default. `--keep FILE` keeps each run's line,
and does not make it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.data import minilm, read_shard
from jobs import job_of
from scripts.real_data import MAKERS

from finetune_api.exits import COMPLETE
from finetune_api.run import RunConfig
from finetune_trainer import prepare
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.launch.warm_up import warm_up
from finetune_trainer.train.worker import run_worker

LENGTH, METRIC, TARGET = 128, "macro-f1", 0.05
ARMS: dict[str, dict[str, Any]] = {
    "setfit": {"method": {"type": "setfit"}},
    "full": {"method": {"type": "full"}, "training": {"epochs": 30}},
    "full by default": {"method": {"type": "full"}},
    # a step that changes nothing leaves the fit of the head alone
    "frozen": {"method": {"type": "setfit"}, "training": {"maxSteps": 1, "learningRate": 1e-12}},
}
Row = dict[str, Any]


def rows_of(name: str, split: str) -> list[Row]:
    """A set's rows."""
    return [row for path in sorted(MAKERS[name]().glob(f"{split}*")) for row in read_shard(path)]


def drawn(rows: list[Row], per_class: int, seed: int) -> list[Row]:
    """So many of each class."""
    draws = random.Random(seed)
    return [
        row
        for name in sorted({row["label"] for row in rows})
        for row in draws.sample([row for row in rows if row["label"] == name], per_class)
    ]


def write(path: Path, rows: list[Row]) -> str:
    """As JSON lines; the URI."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.as_uri()


def config(folder: Path, train: str, test: str, seed: int, arm: Mapping[str, Any], threads: int) -> RunConfig:
    """A job as a user writes it."""
    spec = {
        "task": "text-classification",
        "model": {"uri": minilm().as_uri()},
        "data": {"train": {"uri": train}, "test": {"uri": test}},
        "method": arm["method"],
        "training": {"maxLength": LENGTH, "seed": seed} | arm.get("training", {}),
        "evaluation": {"base": False},
        "checkpoints": {"everySteps": 1_000_000},
    }
    return job_of(spec, folder, threads=threads)


def score(settings: RunConfig, folder: Path) -> dict[str, float]:
    """Both steps of the job, in this process; the metrics of the test rows."""
    (folder / "scratch").mkdir(parents=True)
    assert prepare.main(settings) == COMPLETE, (folder / "termination").read_text()
    run_worker(settings, RankInfo(), warm_up(settings), folder, time.monotonic(), lambda: False)
    found: dict[str, float] = json.loads((folder / "out" / "metrics.json").read_text())["test"]
    return found


def measure(given: argparse.Namespace, arm: str, per_class: int, seed: int) -> dict[str, Any]:
    """One run."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        pool, judged = rows_of(given.set, "train"), rows_of(given.set, "test")[: given.test]
        if given.choosing:
            judged, pool = pool[: given.test], pool[given.test :]
        train = write(top / "train.jsonl", drawn(pool, per_class, seed))
        test = write(top / "test.jsonl", judged)
        spec = ARMS[arm] | ({"training": ARMS[arm].get("training", {}) | given.training} if given.training else {})
        metrics = score(config(top / "job", train, test, seed, spec, given.threads), top / "job")
    return {"score": metrics[METRIC], "accuracy": metrics["accuracy"], "seconds": round(time.monotonic() - began, 1)}


def summary(given: argparse.Namespace, per_class: int, runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Of one number of rows a class."""
    arms = {
        arm: {
            "mean": round(mean(r["score"] for r in results), 4),
            "spread": round(stdev(r["score"] for r in results), 4) if len(results) > 1 else None,
            "scores": [round(r["score"], 4) for r in results],
            "seconds": round(mean(r["seconds"] for r in results), 1),
        }
        for arm, results in runs.items()
    }
    gains = {arm: round(arms["setfit"]["mean"] - arms[arm]["mean"], 4) for arm in arms if arm != "setfit"}
    return {
        "benchmark": "few_shot",
        "set": given.set,
        "model": "all-MiniLM-L6-v2",
        "rows_per_class": per_class,
        "test_rows": given.test,
        "max_length": LENGTH,
        "metric": METRIC,
        "arms": arms,
        "gains": gains,
        "target": TARGET,
        "met": gains["full"] >= TARGET if "full" in gains else None,
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", default="8,32")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--set", default="mails", choices=("mails", "sentiment"))
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--training", type=json.loads, help="JSON: other fields of spec.training")
    parser.add_argument("--choosing", action="store_true", help="judge by training rows, to choose settings by")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    kept: list[dict[str, Any]] = []
    if given.keep and given.keep.exists():
        kept = [json.loads(line) for line in given.keep.read_text().splitlines()]
    for per_class in map(int, given.per_class.split(",")):
        runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in given.arms.split(",")}
        for seed in range(1, given.seeds + 1):
            for arm, results in runs.items():
                key = {
                    "set": given.set,
                    "arm": arm,
                    "as": ARMS[arm],
                    "per_class": per_class,
                    "seed": seed,
                    "test": given.test,
                    "training": given.training,
                    "choosing": given.choosing,
                }
                found = next((line for line in kept if key.items() <= line.items()), None)
                if found is None:
                    found = key | measure(given, arm, per_class, seed)
                    print(json.dumps(found), file=sys.stderr)
                    if given.keep:
                        with given.keep.open("a") as file:
                            file.write(json.dumps(found) + "\n")
                results.append(found)
        print(json.dumps(summary(given, per_class, runs)), flush=True)


if __name__ == "__main__":
    main()
