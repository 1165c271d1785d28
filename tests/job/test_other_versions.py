"""A status that another version wrote: what is over stays over, and what is under way goes on where it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fakecluster.planning import Cluster
from finetune_api.times import rfc3339
from finetune_operator.job.decide import plan
from finetune_operator.plan import names
from finetune_operator.plan.plan import Plan


def finished(**spec: Any) -> Cluster:
    """A job that succeeded, and whose children somebody has deleted since."""
    c = Cluster({"workers": {"replicas": 1}, **spec})
    c.prepare()
    c.train(20, resumed_from_step=0)
    c.finish()
    assert c.phase == "Succeeded"
    c.objects.clear()
    c.pods.clear()
    return c


CHANGES: dict[str, dict[str, Any]] = {
    "an unknown phase": {"phase": "Archived"},
    "an unknown condition status": {
        "conditions": [{"type": "Succeeded", "status": "True", "reason": "x", "lastTransitionTime": 7}]
    },
    "no conditions that we know, but an end": {"conditions": [], "phase": "Archived"},
    "an unknown way to end": {
        "phase": "Retired",
        "conditions": [
            {"type": "Retired", "status": "True", "reason": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ],
    },
    "attempts of another form": {"attempts": {"newest": 1}},
    "longer texts": {"message": "x" * 5000},
    "an unknown field": {"certificates": [1]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_finished_job_is_left_as_it_is(name: str) -> None:
    c = finished()
    c.job["status"] = copy.deepcopy(c.job["status"]) | CHANGES[name]
    before = copy.deepcopy(c.job["status"])
    made = plan(c.observed())
    assert (made.create, made.delete, made.patch, made.notes) == ((), (), (), ())
    assert made.status == c.observed().job.status, "nothing is written"
    c.reconcile()
    if name != "an unknown field":  # which reads the same without it
        assert c.job["status"] == before


def test_a_finished_job_of_another_version_is_deleted_when_its_time_is_over() -> None:
    c = finished(ttlSecondsAfterFinished=60)
    c.job["status"] |= {"phase": "Archived"}
    c.wait(61)
    assert plan(c.observed()).delete_self


def test_a_job_under_way_goes_on_with_the_attempt_that_it_has() -> None:
    c = Cluster()
    c.prepare()
    c.train(20, resumed_from_step=0)
    jobs = [j["metadata"]["name"] for j in c.jobs(names.WORKER)]
    c.job["status"] |= {"phase": "Stretching", "lanes": [1]}
    c.job["status"]["conditions"].append(
        {"type": "Stretched", "status": "Sometimes", "reason": "x", "lastTransitionTime": rfc3339(c.now)}
    )
    c.reconcile()
    assert [j["metadata"]["name"] for j in c.jobs(names.WORKER)] == jobs
    assert (c.status.attempt, c.status.attempts[0].last_step) == (1, 20)
    assert c.notes.count("StatusPartlyRead") == 1
    c.say(30, resumed_from_step=0)
    c.reconcile()
    assert c.phase == "Running"


def test_a_job_whose_attempts_are_gone_goes_on_after_the_number_that_status_keeps() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    c.train(20, resumed_from_step=0)
    c.job["status"] |= {"attempt": 5, "attempts": "of another form"}
    for pod in list(c.pods.values()):
        c.exit(pod, 44)
    c.control()
    c.reconcile()
    assert all(j["metadata"]["name"] != names.child("spam-filter", c.uid, names.WORKER, 2) for j in c.jobs())


def test_a_finished_job_whose_spec_and_status_another_version_wrote_is_left_alone() -> None:
    c = finished()
    c.job["spec"]["task"] = "astrology"
    c.job["metadata"]["generation"] = 2
    c.job["status"] |= {"phase": "Archived", "message": "x" * 5000}
    made = plan(c.observed())
    assert made == Plan(status=c.observed().job.status)
