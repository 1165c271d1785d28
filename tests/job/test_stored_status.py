"""A job that an earlier version of the operator finished is left as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakecluster.planning import Cluster

STORED = Path(__file__).parents[1] / "contract" / "stored"


@pytest.mark.parametrize("name", ["succeeded", "failed"])
def test_a_finished_job_of_an_earlier_version_is_left_as_it_is(name: str) -> None:
    c = Cluster()
    c.job = json.loads((STORED / f"{name}.json").read_text())
    c.wait(3600)
    made = c.reconcile()
    assert (made.create, made.patch, made.delete, made.notes) == ((), (), (), ())
    assert c.status.to_json() == c.job["status"] == json.loads((STORED / f"{name}.json").read_text())["status"]
