"""A new head starts at the best answer that does not look at the row; outputs that come trained stay as they are."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from support.attempts import Bench
from support.models import HAM, tiny_bert, write_jsonl

ROWS = 60
COUNTS = {"common": 40, "rare": 3, "some": 12}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "model")


def tuned(folder: Path, base: Path, counts: dict[str, int], rate: float = 1e-12, **training: Any) -> Bench:
    """One step by which no weight moves."""
    folder.mkdir()
    rng = random.Random(1)
    rows = [
        {
            "text": f"{n} " + " ".join(rng.choices(HAM, k=5)),
            "labels": [name for name, count in counts.items() if n < count],
        }
        for n in range(ROWS)
    ]
    spec = {
        "task": "multi-label-classification",
        "model": {"uri": base.as_uri()},
        "data": {"train": {"uri": write_jsonl(folder / "rows.jsonl", rows).as_uri()}},
        "training": {"maxSteps": 1, "globalBatchSize": ROWS, "learningRate": rate, "weightDecay": 0.0} | training,
        "output": {"uri": (folder / "out").as_uri()},
    }
    found = Bench(folder, spec)
    found.prepare()
    found.attempt()
    return found


def bias(folder: Path) -> dict[str, float]:
    """Of each class."""
    values = load_file(folder / "out" / "model.safetensors")["classifier.bias"].tolist()
    places = json.loads((folder / "out" / "config.json").read_text())["label2id"]
    return {name: values[place] for name, place in places.items()}


def log_odds(count: int) -> float:
    return math.log((count + 1) / (ROWS - count + 1))


def test_a_class_starts_by_how_often_it_occurs(tmp_path: Path, base: Path) -> None:
    found = tuned(tmp_path / "a", base, COUNTS)
    assert bias(tmp_path / "a") == pytest.approx({name: log_odds(count) for name, count in COUNTS.items()}, abs=1e-4)
    shares = [COUNTS[name] / ROWS for name in COUNTS]
    entropy = -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in shares) / len(shares)
    ((first),) = [event["loss"] for event in found.events("step")]
    assert first == pytest.approx(entropy, abs=0.05)


def test_where_classes_weigh_as_much_as_their_absence_it_starts_even(tmp_path: Path, base: Path) -> None:
    tuned(tmp_path / "a", base, COUNTS, classWeights="balanced")
    assert bias(tmp_path / "a") == pytest.approx(dict.fromkeys(COUNTS, 0.0), abs=1e-6)


def test_outputs_that_come_trained_go_on_as_they_are(tmp_path: Path, base: Path) -> None:
    tuned(tmp_path / "a", base, COUNTS, rate=0.5)
    before = bias(tmp_path / "a")
    tuned(tmp_path / "b", tmp_path / "a" / "out", COUNTS | {"other": 6})
    assert bias(tmp_path / "b") == pytest.approx(before | {"other": log_odds(6)}, abs=1e-4)
