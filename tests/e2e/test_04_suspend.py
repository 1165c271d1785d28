"""Suspend mid-run, resume: the same steps, rows, losses and final metrics as the run that nobody disturbed."""

from __future__ import annotations

import pytest

from .cluster import wait
from .conftest import Place
from .runs import LOADS, Load, check_every_row_once, cursors, trace


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_suspend_and_resume_changes_nothing_in_the_result(
    place: Place, load: Load, request: pytest.FixtureRequest
) -> None:
    load.fetch(request)
    calm = place.job("calm", **load.changes)
    undisturbed = calm.wait_succeeded(load.patience)
    job = place.job("disturbed", **load.changes)
    job.wait_step(load.disturb_at, 300)
    job.patch({"suspend": True})
    status = job.wait_phase("Suspended", 120)
    wait("all pods gone", lambda: not job.workers(), 60)
    assert status["checkpoints"][0]["step"] >= load.disturb_at, (
        "the checkpoint is written when the pods are told to stop"
    )
    assert status["checkpoints"][0]["step"] == status["attempts"][0]["lastStep"], "no step is lost by a suspend"
    assert status["progress"]["step"] < status["progress"]["totalSteps"]
    job.patch({"suspend": False})
    status = job.wait_succeeded(load.patience)
    assert len(status["attempts"]) == 2
    assert status["attempts"][1]["lostSteps"] == 0
    assert status["test"] == undisturbed["test"]
    assert trace(place, "disturbed") == trace(place, "calm")
    check_every_row_once(place, "calm", undisturbed)
    check_every_row_once(place, "disturbed", status)
    stood, other = cursors(place, "disturbed"), cursors(place, "calm")
    assert {step: stood[step] for step in other} == other
