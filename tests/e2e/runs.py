"""Runs that other runs are compared with: what to train, and the row-exact traces that two runs must share.

A trace has for each step its loss, rows and tokens, and each checkpoint's manifest says where the data cursor stood: a
row that was lost or learned twice after a restart shows in all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from .cluster import env
from .conftest import BUCKET, Place

# Two pods share the cores of a small node with each other: one thread each.
RESOURCES = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "3Gi"}}


@dataclass(frozen=True)
class Load:
    """A job to disturb: its changes to the tiny job, the step at which to do it, and seconds to wait for its end."""

    name: str
    changes: dict[str, Any]
    every: int
    disturb_at: int
    patience: float
    needs: str = "tiny"

    def fetch(self, request: pytest.FixtureRequest) -> None:
        """Put its model and data into the storage."""
        request.getfixturevalue(self.needs)


def minilm(seed: int) -> dict[str, Any]:
    """MiniLM on the real mails: one epoch of 2,000 rows of 128 tokens on two workers."""
    return {
        "model__uri": f"s3://{BUCKET}/models/minilm",
        "data": {
            "train": {"uri": f"s3://{BUCKET}/spam/train/*.jsonl.zst"},
            "test": {"uri": f"s3://{BUCKET}/spam/test/*.jsonl.zst"},
            "columns": {"text": "body", "label": "label"},
        },
        "training": {"epochs": 1, "globalBatchSize": 16, "learningRate": 1e-4, "maxLength": 128, "seed": seed},
        "workers": {"replicas": 2, "resources": RESOURCES},
    }


def _checkpointed(every: int) -> dict[str, Any]:
    """A checkpoint at each interval, all of them kept."""
    return {"checkpoints__everySteps": every, "checkpoints__keepLast": 100}


# The tiny job is evaluated where a checkpoint is due anyhow, so that every checkpoint lies on the interval.
TINY = Load(
    "bert",
    {"training__epochs": 50, "workers__replicas": 2, **_checkpointed(40), "evaluation__everySteps": 80},
    40,
    60,
    420,
)
REAL = Load("minilm", {**minilm(42), **_checkpointed(20)}, 20, 45, 1500, needs="mail")
LOADS = [TINY, REAL] if env("FULL") else [TINY]


@dataclass(frozen=True)
class Step:
    """One optimizer step as the trainer logged it."""

    loss: float
    rows: int
    tokens: int


def trace(place: Place, name: str) -> dict[int, Step]:
    """The steps of a finished job; one that appears twice fails the test."""
    lines = place.storage.read(BUCKET, place.output(name) + "/events.jsonl").decode().splitlines()
    found: dict[int, Step] = {}
    for each in map(json.loads, lines):
        if each["kind"] == "step":
            assert each["step"] not in found, f"step {each['step']} twice"
            found[each["step"]] = Step(each["loss"], each["rows"], each["tokens"])
    return found


def cursors(place: Place, name: str) -> dict[int, tuple[int, int]]:
    """Epoch and row of the data cursor by step, from the manifests of all checkpoints in the storage."""
    prefix = place.output(name) + "/ckpt/"
    keys = [key for key in place.storage.keys(BUCKET, prefix) if key.endswith("/MANIFEST.json")]
    cursor = [json.loads(place.storage.read(BUCKET, key))["cursor"] for key in keys]
    return {each["step"]: (each["epoch"], each["row"]) for each in cursor}


def check_every_row_once(place: Place, name: str, status: dict[str, Any]) -> None:
    """Each epoch has each row exactly once: by the rows of all steps, and by the cursor of each checkpoint."""
    steps, rows = trace(place, name), status["data"]["trainRows"]
    total = status["resolved"]["totalSteps"]
    assert sorted(steps) == list(range(1, total + 1))
    assert sum(each.rows for each in steps.values()) == round(rows * status["resolved"]["epochs"])
    done = 0
    stood = cursors(place, name)
    assert stood
    for step in range(1, total + 1):
        done += steps[step].rows
        if step in stood:
            epoch, row = stood[step]
            assert epoch * rows + row == done, f"the cursor of step {step} stands at row {row} of epoch {epoch}"
