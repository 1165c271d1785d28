"""A job in a namespace that may not be read waits and says so; one that is over, or unreadable, stays as it is."""

from __future__ import annotations

from fakecluster.planning import Cluster
from finetune_operator.job.policies import hidden_namespace
from finetune_operator.plan.plan import Plan

WHY = "pods is forbidden"


def watched(c: Cluster) -> tuple[str, str] | None:
    return next(((x.status, x.reason) for x in c.status.conditions if x.type == "Watched"), None)


def test_it_waits_until_the_namespace_is_in_sight() -> None:
    c = Cluster()
    c.check()
    before = c.status
    made = hidden_namespace.plan(c.observed(), WHY)
    assert made == Plan(status=made.status), "nothing else is done"
    assert made.status.phase == before.phase
    c.apply(made)
    assert watched(c) == ("False", "NamespaceHidden")
    assert WHY in c.status.conditions[-1].message
    c.reconcile()
    assert watched(c) == ("True", "Watched")


def test_a_job_that_was_always_in_sight_says_nothing_of_it() -> None:
    c = Cluster()
    c.check()
    assert watched(c) is None


def test_what_is_over_unreadable_or_going_stays_as_it_is() -> None:
    c = Cluster()
    c.prepare()
    c.train()
    c.finish()
    assert c.phase == "Succeeded"
    assert hidden_namespace.plan(c.observed(), WHY) == Plan(status=c.status)
    for c in (Cluster({"task": "astrology"}), Cluster()):
        c.job["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
        assert hidden_namespace.plan(c.observed(), WHY) == Plan(status=c.status)
    c = Cluster({"task": "astrology"})
    assert hidden_namespace.plan(c.observed(), WHY) == Plan(status=c.status)
