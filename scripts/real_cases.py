"""What real_scores.py measures: each case is one way to tune a real model on a real set.

Only the first so many rows of a set are used (they are shuffled): enough for a sound score, and few enough for two
cores. Rates are the task's defaults but where few steps have much to learn; those were set after scores at the defaults
had been seen on the same test rows, and not searched for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.data import cache, minilm, read_shard, write_shard
from scripts.real_data import MAKERS

FOLDER = cache() / "scores"
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
"""Where an answer starts and ends is new to the base: twice the default rate, and three times its steps."""
READ = {"epochs": 1, "globalBatchSize": 16, "maxLength": 128, "learningRate": 2e-4}
"""MiniLM comes without a layer that guesses words, and a new one has to be learned."""
FEW = {"epochs": 10, "globalBatchSize": 16, "maxLength": 32}
IMAGES = {"epochs": 10, "globalBatchSize": 32, "learningRate": 5e-4}
"""The ViT is an eighth as wide as those that the default rate is for."""
FIRST = {"epochs": 4, "globalBatchSize": 64, "learningRate": 1e-3}
"""New weights take a higher rate than tuned ones (Dosovitskiy et al. 2021, arXiv 2010.11929, table 3)."""


def work(name: str, seed: int) -> Path:
    """Where a case's run is, and what it left."""
    return FOLDER / "work" / f"{name}-{seed}"


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
        """What a score hangs on, besides the base and `keep`; one that was measured by others is not the case's."""
        fields = ("of", "task", "training", "method", "rows", "test", "validation", "labels")
        return {name: getattr(self, name) for name in fields} | {"after": self.after and CASES[self.after].settings}


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
