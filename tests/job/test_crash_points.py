"""I6: the operator dies before each write of a job's life in turn; every life ends alike, and nothing is made twice
or left over."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from fakecluster.planning import Cluster, Crash
from finetune_operator.plan import names
from finetune_operator.plan.plan import Plan

Life = Callable[[Cluster], None]


class Mortal(Cluster):
    """Reconciles as an operator that is started again after it died; what it knew beside the API server is lost."""

    died = False

    def reconcile(self, times: int = 6) -> Plan:
        for _ in range(3):
            try:
                return super().reconcile(times)
            except Crash:
                self.crash_at, self.died = None, True
                self.conflicts, self.refusals = (), ()
        raise AssertionError("died more than once")


def undisturbed(c: Cluster) -> None:
    c.prepare()
    c.train(10, resumed_from_step=0)
    c.finish()


def beaten(c: Cluster) -> None:
    c.prepare()
    c.train(20, resumed_from_step=0, checkpoints=(c.checkpoint(20),))
    c.exit(c.pod(1), 137, outcome=False)
    c.control()
    c.reconcile()
    c.sweep(41)
    c.control()
    c.reconcile()
    c.train(30, resumed_from_step=20, checkpoints=(c.checkpoint(30),))
    for pod in (c.pod(0), c.pod(1)):
        c.exit(pod, 44)
    c.control()
    c.control()
    c.reconcile()
    c.train(40, resumed_from_step=30, checkpoints=(c.checkpoint(40),))
    c.finish()


def rested(c: Cluster) -> None:
    c.prepare()
    c.train(20, resumed_from_step=0)
    c.job["spec"]["suspend"] = True
    c.reconcile()
    c.sweep()
    c.reconcile()
    c.job["spec"]["suspend"] = False
    c.reconcile()
    c.train(25, resumed_from_step=20)
    c.finish()


def refused(c: Cluster) -> None:
    c.reconcile()
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.exit(c.pod(0, names.PREPARE), 42)
    c.control()
    c.control()
    c.reconcile()
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.exit(c.pod(0, names.PREPARE), 21)
    c.control()
    c.control()
    c.reconcile()


def overdue(c: Cluster) -> None:
    c.job["spec"]["activeDeadlineSeconds"] = 30
    c.prepare()
    c.train(20)
    c.wait(60)
    c.reconcile()
    c.sweep()
    c.reconcile()


LIVES: dict[str, Life] = {
    "undisturbed": undisturbed,
    "beaten": beaten,
    "rested": rested,
    "refused": refused,
    "overdue": overdue,
}


def end_of(c: Cluster) -> dict[str, object]:
    """What must be the same however often the operator died."""
    status = c.status
    return {
        "phase": status.phase,
        "failure": status.failure,
        "output": status.output,
        "attempts": [
            (a.number, a.reason, a.from_step, a.last_step, a.lost_steps, a.end_time is not None)
            for a in status.attempts
        ],
        "restarts": status.restarts,
        "conditions": {(x.type, x.status) for x in status.conditions},
        "children": sorted(c.objects),
        "used": sorted(j["metadata"]["annotations"][names.RESTARTS_USED] for j in c.jobs()),
        "made": Counter(c.created),
    }


@functools.cache
def undying(name: str) -> Cluster:
    """The life as nobody dies."""
    c = Mortal()
    LIVES[name](c)
    return c


def deaths() -> Iterator[tuple[str, int]]:
    for name in LIVES:
        yield from ((name, write) for write in range(undying(name).writes))


@pytest.mark.parametrize(("name", "write"), list(deaths()))
def test_death_before_any_write_changes_nothing_in_the_end(name: str, write: int) -> None:
    c = Mortal()
    c.crash_at = write
    LIVES[name](c)
    assert c.died
    assert max(Counter(c.created).values()) == 1, "nothing is made twice"
    assert end_of(c) == end_of(undying(name))


def test_the_lives_have_enough_writes_to_die_before() -> None:
    assert len(list(deaths())) >= 60
