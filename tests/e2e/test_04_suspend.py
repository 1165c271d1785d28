"""Suspend mid-run, resume: the same steps, losses and final metrics as the run that nobody disturbed."""

from __future__ import annotations

import json

from .cluster import wait
from .conftest import BUCKET, Place

LONG = {"training__epochs": 30, "checkpoints__everySteps": 40, "workers__replicas": 2}


def trace(place: Place, name: str) -> dict[int, float]:
    """Loss by step as the trainer logged it; a step that appears twice fails the test."""
    lines = place.storage.read(BUCKET, place.output(name) + "/events.jsonl").decode().splitlines()
    found: dict[int, float] = {}
    for each in map(json.loads, lines):
        if "loss" in each and each.get("step") is not None and each.get("kind", "step") in ("step", "train"):
            assert each["step"] not in found, f"step {each['step']} twice"
            found[each["step"]] = each["loss"]
    return found


def test_suspend_and_resume_changes_nothing_in_the_result(place: Place) -> None:
    calm = place.job("calm", **LONG)
    calm.wait_succeeded(420)
    job = place.job("disturbed", **LONG)
    job.wait_step(60, 300)
    job.patch({"suspend": True})
    status = job.wait_phase("Suspended", 120)
    wait("all pods gone", lambda: not job.workers(), 60)
    assert status["checkpoints"][0]["step"] >= 60, "the checkpoint is written when the pods are told to stop"
    assert status["progress"]["step"] < status["progress"]["totalSteps"]
    job.patch({"suspend": False})
    status = job.wait_succeeded(300)
    assert len(status["attempts"]) == 2
    assert status["test"] == calm.status["test"]
    assert trace(place, "disturbed") == trace(place, "calm")
    assert sorted(trace(place, "disturbed")) == list(range(1, status["resolved"]["totalSteps"] + 1))
