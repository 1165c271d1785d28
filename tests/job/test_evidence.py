"""Absence is not evidence: an attempt is judged by pods that were seen where its Job is, and what is missing is
looked up first."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import Cluster
from finetune_api.status import DataProfile
from finetune_api.times import rfc3339
from finetune_operator.job.decide import plan
from finetune_operator.plan import names


def running(replicas: int = 2) -> Cluster:
    """Workers are at work; from here on nothing is taken for looked up."""
    c = Cluster({"workers": {"replicas": replicas}})
    c.prepare()
    c.train(20, resumed_from_step=0)
    c.looked_up = frozenset()
    return c


def job_says(c: Cluster, *conditions: str, component: str = names.WORKER, **counts: int) -> str:
    """The Job's event comes before those of its pods."""
    job = c.jobs(component)[-1]
    said = [{"type": t, "status": "True", "reason": "x", "lastTransitionTime": rfc3339(c.now)} for t in conditions]
    job["status"] = {"startTime": rfc3339(c.now), "conditions": said, **counts}
    return str(job["metadata"]["name"])


def undecided(c: Cluster, name: str) -> None:
    made = plan(c.observed())
    assert made.look_up == (name,)
    assert (made.create, made.delete, made.patch, made.notes) == ((), (), (), ())
    assert made.status == c.status


CASES: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "failing": (("FailureTarget",), {"active": 1, "failed": 1}),
    "failing, its pods on their way out": (("FailureTarget",), {"terminating": 1, "failed": 1}),
    "failed": (("FailureTarget", "Failed"), {"failed": 2}),
    "complete": (("SuccessCriteriaMet", "Complete"), {"succeeded": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_pods_that_were_never_seen_are_looked_up_before_anything_is_decided(case: str) -> None:
    c = running()
    for name in [p for p, o in c.pods.items() if o["metadata"]["labels"][names.COMPONENT] == names.WORKER]:
        del c.pods[name]
    undecided(c, job_says(c, *CASES[case][0], **CASES[case][1]))


@pytest.mark.parametrize("case", ["failed", "complete"])
def test_pods_that_still_seem_to_run_are_looked_up_when_their_job_has_ended(case: str) -> None:
    c = running()
    undecided(c, job_says(c, *CASES[case][0], **CASES[case][1]))


def test_pods_known_to_be_at_work_are_waited_for() -> None:
    c = running()
    c.exit(c.pod(1), 44)
    job_says(c, "FailureTarget", active=1, failed=1)
    made = plan(c.observed())
    assert (made.look_up, made.create) == ((), ())


def test_a_pod_that_its_job_counts_and_nobody_has_seen_is_looked_up() -> None:
    c = running()
    c.exit(c.pod(0), 44)
    c.exit(c.pod(1), 44)
    undecided(c, job_says(c, "FailureTarget", active=1, failed=1))


def test_a_job_that_is_not_there_is_looked_up() -> None:
    c = running()
    name = c.jobs(names.WORKER)[0]["metadata"]["name"]
    del c.objects["Job", name]
    c.pods.clear()
    undecided(c, name)


def test_what_was_looked_up_and_not_found_is_gone() -> None:
    c = running(1)
    c.pods.clear()
    c.looked_up = {job_says(c, "FailureTarget", "Failed", failed=1)}
    made = plan(c.observed())
    assert made.status.attempts[0].reason == "PodDeleted"
    assert [x.kind for x in made.create] == ["ConfigMap", "Service", "Job"]


def test_the_last_word_of_a_success_is_heard() -> None:
    c = running(1)
    name = job_says(c, "Complete", succeeded=1)
    undecided(c, name)
    c.exit(c.pod(0), 0, step=100, test={"macro-f1": 0.97})
    c.reconcile()
    assert (c.phase, c.status.test) == ("Succeeded", {"macro-f1": 0.97})


def test_the_profile_of_the_data_is_heard() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.looked_up = frozenset()
    pod = c.check()
    undecided(c, job_says(c, "Complete", component=names.PREPARE, succeeded=1))
    c.exit(pod, 0, data=DataProfile(train_rows=10, bad_rows=7))
    c.reconcile()
    assert c.status.data is not None
    assert c.status.data.bad_rows == 7


def test_the_true_cause_is_told_and_no_attempt_made_beside_one_that_runs() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 0}, "workers": {"replicas": 1}})
    c.prepare()
    c.control()
    c.looked_up = frozenset()
    hidden: dict[str, Any] = {
        n: c.pods.pop(n) for n in list(c.pods) if c.pods[n]["metadata"]["labels"][names.COMPONENT] == names.WORKER
    }
    undecided(c, job_says(c, "FailureTarget", "Failed", failed=1))
    c.pods |= hidden
    c.exit(c.pod(0), 29)
    c.reconcile()
    assert c.status.failure is not None
    assert (c.phase, c.status.failure.reason) == ("Failed", "NothingToLearn")


def test_events_in_order_need_no_look() -> None:
    c = Cluster({"workers": {"replicas": 2}})
    c.looked_up = frozenset()
    c.prepare()
    c.train(20, resumed_from_step=0)
    c.finish()
    assert c.phase == "Succeeded"
