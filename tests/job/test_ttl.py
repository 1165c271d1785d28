"""spec.ttlSecondsAfterFinished: a job is deleted only once it is written down how it ended."""

from __future__ import annotations

import pytest

from fakecluster.planning import Cluster, Crash
from finetune_operator.job.decide import plan


def ended(ttl: int, code: int, away: float) -> Cluster:
    """A job whose worker has ended while the operator was away, of which it knows nothing yet."""
    c = Cluster({"workers": {"replicas": 1}, "ttlSecondsAfterFinished": ttl})
    c.prepare()
    c.train(20, resumed_from_step=0)
    for pod in c.pods.values():
        if pod["status"].get("phase") == "Running":
            c.exit(pod, code)
    c.control()
    c.wait(away)
    return c


@pytest.mark.parametrize(("ttl", "away"), [(0, 0.0), (3600, 7200.0)])
@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (29, "Failed")])
def test_the_end_is_written_before_the_job_goes(ttl: int, away: float, code: int, phase: str) -> None:
    c = ended(ttl, code, away)
    first = plan(c.observed())
    assert not first.delete_self
    assert first.requeue_after == 0.0
    c.reconcile(1)
    assert (c.phase, c.gone) == (phase, False)
    assert phase in c.notes
    c.reconcile(1)
    assert c.gone


def test_an_operator_that_dies_before_it_wrote_the_end_deletes_nothing() -> None:
    c = ended(0, 29, 0.0)
    c.writes, c.crash_at = 0, 0
    with pytest.raises(Crash):
        c.reconcile()
    c.crash_at = None
    assert not plan(c.observed()).delete_self


def test_the_job_stays_until_its_time_is_over() -> None:
    c = ended(3600, 0, 0.0)
    made = c.reconcile()
    assert made.requeue_after == 3600
    c.wait(3599)
    assert not plan(c.observed()).delete_self
    c.wait(2)
    assert plan(c.observed()).delete_self
