"""Scores of every task on real data with real models, as a user gets them: each line is one `finetune run`.

    python scripts/real_scores.py                    # all cases by all seeds: hours on two cores
    python scripts/real_scores.py mails sentiment    # these alone
    python scripts/real_scores.py --table            # write docs/results.md from what was measured

Data comes from real_data.py, models from examples/data.py. What was measured is kept below the cache folder, one JSON
line a run, and is not measured again, so that a run that was interrupted goes on. Only the first so many rows of a set
are used (they are shuffled): enough for a sound score, and few enough for two cores.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples import data
from examples.data import cache, minilm, read_shard, write_shard
from scripts.real_data import MAKERS

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (1, 2, 3)
FOLDER = cache() / "scores"
LINES = FOLDER / "scores.jsonl"
PAGE = ROOT / "docs" / "results.md"
NEW_CLOTHES = ("sandal", "shirt", "sneaker", "bag", "ankle boot")
"""What the small ViT has not seen before it is tuned."""
COMMON = ("python", "doc", "perl", "utils", "devel", "haskell", "rust", "golang", "javascript", "net")

SHORT = {"epochs": 3, "globalBatchSize": 32, "maxLength": 64}
LONGER = {"epochs": 2, "globalBatchSize": 32, "maxLength": 128}
MANY = {"epochs": 4, "globalBatchSize": 16, "maxLength": 32, "learningRate": 2e-4}
"""For dozens of classes: few rows are few steps, in which the default rate (5e-5) learns the common ones alone."""
RARE = {"epochs": 8, "globalBatchSize": 16, "maxLength": 64, "learningRate": 2e-4}
"""For types of which a few hundred occur among thousands of other words: the same."""
ASKED = {"epochs": 3, "globalBatchSize": 16, "maxLength": 128, "learningRate": 1e-4}
READ = {"epochs": 1, "globalBatchSize": 16, "maxLength": 128, "learningRate": 2e-4}
"""MiniLM comes without a layer that guesses words, and a new one has to be learned."""
FEW = {"epochs": 10, "globalBatchSize": 16, "maxLength": 32}
IMAGES = {"epochs": 10, "globalBatchSize": 32, "learningRate": 5e-4}
"""The ViT is an eighth as wide as those that the default rate is for."""
FIRST = {"epochs": 4, "globalBatchSize": 64, "learningRate": 1e-3}
"""New weights take a higher rate than tuned ones (Dosovitskiy et al. 2021, arXiv 2010.11929, table 3)."""


@dataclass(frozen=True)
class Case:
    """One way to learn one set. `rows`, `test`: how many of each are used."""

    name: str
    says: str
    of: str
    """The set, as real_data.py calls it."""
    task: str = "text-classification"
    metric: str = "macro-f1"
    training: Mapping[str, Any] = field(default_factory=lambda: SHORT)
    method: Mapping[str, Any] = field(default_factory=lambda: {"type": "full"})
    rows: int = 2000
    test: int = 1000
    base: Callable[[int], Path] = lambda seed: minilm()
    """(seed) -> the folder of the model to start from."""
    after: str = ""
    """The case from whose output of the same seed it starts instead."""
    keep: Callable[[Mapping[str, Any]], bool] = lambda row: True
    """Which rows are used at all."""
    validation: float | None = None
    """The share of the rows to choose by from when on an answer counts; without it the weights of the last step answer
    as the task does by default.
    """
    labels: bool = False
    """Whether all classes of the set are told of."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a score hangs on; one that was measured by others is not the case's."""
        fields = ("of", "task", "training", "method", "rows", "test", "validation", "labels")
        return {name: getattr(self, name) for name in fields} | {"after": self.after and CASES[self.after].settings}


def files_of(name: str) -> tuple[list[Path], list[Path]]:
    """The files to learn from and to test on, of a set."""
    folder = MAKERS[name]()
    return sorted(folder.glob("train*")), sorted(folder.glob("test*"))


def write_rows(case: Case, target: Path) -> dict[str, Any]:
    """The first rows of the case's set; spec.data."""
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for split, files, count in zip(("train", "test"), files_of(case.of), (case.rows, case.test), strict=True):
        if files[0].suffix == ".parquet":
            path = target / f"{split}.parquet"
            write_table(files, path, case.keep, count)
        else:
            path = target / f"{split}.jsonl.zst"
            rows: Iterator[dict[str, Any]] = (row for file in files for row in read_shard(file) if case.keep(row))
            write_shard(path, [row for _, row in zip(range(count), rows, strict=False)])
        found[split] = {"uri": path.as_uri()}
    if case.validation:
        found["validation"] = {"fraction": case.validation}
    if case.labels:  # a rare class may have no row among the first, and one among those to test on
        found["labels"] = sorted({row["label"] for file in files_of(case.of)[0] for row in read_shard(file)})
    return found


def write_table(files: list[Path], path: Path, keep: Callable[[dict[str, Any]], bool], count: int) -> None:
    from pyarrow import parquet

    table = parquet.read_table(files)
    wanted = [n for n, label in enumerate(table.column("label").to_pylist()) if keep({"label": label})]
    parquet.write_table(table.take(wanted[:count]), path, row_group_size=1000)


def work(name: str, seed: int) -> Path:
    """Where a case's run is, and what it left."""
    return FOLDER / "work" / f"{name}-{seed}"


def run(case: Case, seed: int) -> dict[str, Any]:
    """Tune, and read the scores of the test rows."""
    folder = work(case.name, seed)
    shutil.rmtree(folder, ignore_errors=True)
    output = folder / "out"
    spec = {
        "task": case.task,
        "model": {"uri": (work(case.after, seed) / "out" if case.after else case.base(seed)).as_uri()},
        "data": write_rows(case, folder / "rows"),
        "method": dict(case.method),
        "training": dict(case.training) | {"seed": seed},
        "output": {"uri": output.as_uri()},
    }
    job = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": case.name},
        "spec": spec,
    }
    manifest = folder / "job.yaml"
    manifest.write_text(json.dumps(job, indent=1))  # JSON is YAML
    command = (str(Path(sys.executable).with_name("finetune")), "run", str(manifest), "--no-hints")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{case.name}, seed {seed}: {done.stdout[-3000:]}")
    metrics = json.loads((output / "metrics.json").read_text())
    shutil.rmtree(folder / "rows")
    resolved = metrics["resolved"]
    return {
        "case": case.name,
        "seed": seed,
        "settings": case.settings,
        "test": metrics["test"],
        "trainRows": metrics["data"]["trainRows"],
        "testRows": metrics["data"]["testRows"],
        "steps": metrics["steps"],
        "learningRate": resolved["learningRate"],
        "parameters": resolved["parameters"],
        "trainable": resolved["trainableParameters"],
        "versions": metrics["versions"],
    }


def small_vit(seed: int) -> Path:
    """A ViT for images of 28 x 28 with new weights: 4 layers of 96, patches of 4."""
    folder = work("vit", seed)
    if not (folder / "model.safetensors").exists():
        import torch
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

        torch.manual_seed(seed)
        config = ViTConfig(
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=384,
            image_size=28,
            patch_size=4,
            num_channels=3,
        )
        ViTForImageClassification(config).save_pretrained(folder)
        size = {"height": 28, "width": 28}
        ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return folder


def seen_first(row: Mapping[str, Any]) -> bool:
    """Whether the small ViT is trained on the row's kind first."""
    return row["label"] not in NEW_CLOTHES


def common(row: Mapping[str, Any]) -> bool:
    """Whether the package is of one of the ten largest sections but for the libraries'."""
    return row["label"] in COMMON


def new(row: Mapping[str, Any]) -> bool:
    """Whether it meets the row's kind only when it is tuned."""
    return row["label"] in NEW_CLOTHES


LORA = {"type": "lora", "lora": {"rank": 4}}  # with the new head 1.4 % of the weights
CASES = {
    case.name: case
    for case in (
        Case("mails", "spam or ham", "mails", training=LONGER),
        Case("mails-lora", "the same, adapters", "mails", training=LONGER, method=LORA),
        Case("sentiment", "sentences of reviews, good or bad", "sentiment", rows=4000),
        Case(
            "sections",
            "Debian packages by their section, one of 54",
            "sections",
            metric="accuracy",
            training=MANY,
            rows=3000,
            labels=True,
        ),
        Case(
            "tags",
            "Debian packages by tags, any of 74",
            "tags",
            "multi-label-classification",
            "micro-f1",
            MANY,
            rows=3000,
            validation=0.1,
        ),
        Case("ratings", "how good snippets sound, -4 to 4", "ratings", "text-regression", "pearson"),
        Case("tweets", "ten types of entities in tweets", "tweets", "token-classification", "f1", RARE),
        Case(
            "questions",
            "GENERATED questions on package records, a third without an answer",
            "questions",
            "question-answering",
            "answer-f1",
            ASKED,
            rows=1500,
        ),
        Case(
            "descriptions",
            "package descriptions, words to be guessed",
            "descriptions",
            "masked-lm",
            "perplexity",
            READ,
            rows=8000,
        ),
        Case("sections-few", "of ten sections, from MiniLM", "sections", training=FEW, rows=600, keep=common),
        Case(
            "sections-adapted",
            "the same, from MiniLM adapted to descriptions",
            "sections",
            training=FEW,
            rows=600,
            after="descriptions",
            keep=common,
        ),
        Case(
            "clothes-first",
            "a small ViT with new weights learns five kinds of clothes",
            "fashion",
            "image-classification",
            training=FIRST,
            rows=20000,
            test=2500,
            base=small_vit,
            keep=seen_first,
        ),
        Case(
            "clothes-tuned",
            "the other five kinds, 1,000 images, from that ViT",
            "fashion",
            "image-classification",
            training=IMAGES,
            rows=1000,
            test=2500,
            after="clothes-first",
            keep=new,
        ),
        Case(
            "clothes-scratch",
            "the same 1,000 images, from new weights",
            "fashion",
            "image-classification",
            training=IMAGES,
            rows=1000,
            test=2500,
            base=small_vit,
            keep=new,
        ),
    )
}


BESIDE = (("mails-lora", "mails"), ("sections-adapted", "sections-few"), ("clothes-tuned", "clothes-scratch"))
"""Cases that are compared, each with what it is compared with: the mean of one over the other's, of the same seeds."""


def measured() -> dict[tuple[str, int], dict[str, Any]]:
    """What is known by the cases' present settings: (case, seed) -> its line."""
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    now = {name: case.settings for name, case in CASES.items()}
    return {(line["case"], line["seed"]): line for line in lines if line["settings"] == now.get(line["case"])}


def measure(names: list[str], seeds: tuple[int, ...]) -> None:
    """Those that are not known yet. Two processes with a thread each get further on two cores than one with two: give
    them different seeds, since cases start from what others of their seed left.
    """
    for seed in seeds:
        for case in (CASES[name] for name in names):
            with (FOLDER / f"{case.name}-{seed}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    sys.exit(f"{case.name}, seed {seed}: another process is at it; name other seeds with --seeds")
                if (case.name, seed) in measured():
                    continue
                line = run(case, seed)
                with LINES.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{case.name}, seed {seed}: {case.metric} {line['test'][case.metric]:.4f}", flush=True)


def table() -> str:
    """docs/results.md, from all that was measured."""
    found = measured()
    rows, beside = [], []
    for case in CASES.values():
        lines = [line for (name, _), line in sorted(found.items()) if name == case.name]
        if not lines:
            continue
        values = [line["test"][case.metric] for line in lines]
        spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
        low, high = (lines[0]["test"].get(f"{case.metric}-{end}") for end in ("low", "high"))
        bounds = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else "—"
        share = lines[0]["trainable"] / lines[0]["parameters"]
        score = f"{mean(values):.4g}{spread} ({len(values)})"
        rows.append(
            f"| {case.name} | {case.task} | {case.says} | {lines[0]['trainRows']:,} / {lines[0]['testRows']:,}"
            f" | {case.metric} | {score} | {bounds} | {share:.1%}"
            f" | {lines[0]['learningRate']:g} |"
        )
    for name, other in BESIDE:
        seeds = [seed for seed in SEEDS if {(name, seed), (other, seed)} <= found.keys()]
        if seeds:
            mine, theirs = (mean(found[n, seed]["test"][CASES[n].metric] for seed in seeds) for n in (name, other))
            beside.append(
                f"- `{name}` comes to {mine / theirs:.1%} of `{other}`, by {len(seeds)} seed{'s' * (len(seeds) > 1)}."
            )
    versions = next(iter(found.values()))["versions"]
    return "\n".join(
        (
            "<!-- Written by scripts/real_scores.py --table from what it measured; do not edit. -->",
            "# Scores on real data",
            "",
            "What `finetune run` comes to on data that package registries carry, on two cores without a GPU. Each line"
            " is the mean over seeds and its standard deviation (in brackets: how many seeds), on test rows that no"
            " training saw; beside it the 95 % confidence interval of the first seed over them, the share of the"
            " weights that was trained, and the learning rate. The base is MiniLM (22 million weights) but for images."
            " `python scripts/real_scores.py` makes them again.",
            "",
            "| case | task | | rows to learn from / to test | metric | mean ± deviation | 95 %, first seed | trained"
            " | rate |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            *beside,
            "",
            "With " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
            "",
        )
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"which of {', '.join(CASES)}; all where none is named"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--table", action="store_true", help=f"write {PAGE.relative_to(ROOT)} from what was measured")
    given = parser.parse_args()
    if unknown := set(given.cases) - CASES.keys():
        parser.error(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        if given.table:
            PAGE.write_text(table())
        else:
            measure(given.cases or list(CASES), tuple(given.seeds))
    except data.Unavailable as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
