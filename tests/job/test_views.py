"""Jobs, pods, Services and Events as the API server sends them: what is ours is read, all else is nobody's child."""

from __future__ import annotations

import dataclasses
from typing import Any

from fakecluster.planning import START, Cluster
from finetune_api.times import rfc3339
from finetune_operator.job.attempt.attempt import attempts
from finetune_operator.plan import names
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView
from finetune_operator.plan.views.service import ServiceView


def preparing() -> Cluster:
    c = Cluster()
    c.check()
    return c


def test_children_know_the_stem_of_their_names() -> None:
    observed = preparing().observed()
    expected = names.stem("spam-filter", observed.job.uid)
    assert [j.stem for j in observed.jobs] == [expected]
    assert [p.stem for p in observed.pods] == [expected]


def test_a_job_of_anothers_name_or_owner_is_not_ours() -> None:
    job = preparing().jobs()[0]
    assert JobView.from_object(job)
    meta = job["metadata"]
    for change in (
        {"name": "nightly"},
        {"ownerReferences": []},
        {"ownerReferences": [{**meta["ownerReferences"][0], "kind": "CronJob"}]},
        {"ownerReferences": [{**meta["ownerReferences"][0], "name": "another"}]},
    ):
        assert JobView.from_object({**job, "metadata": {**meta, **change}}) is None


def test_a_pod_that_no_job_of_ours_controls_is_not_ours() -> None:
    pod = next(iter(preparing().pods.values()))
    assert PodView.from_object(pod)
    for owner in ({"kind": "ReplicaSet"}, {"name": "nightly"}):
        meta = pod["metadata"]
        owners = [{**meta["ownerReferences"][0], **owner}]
        assert PodView.from_object({**pod, "metadata": {**meta, "ownerReferences": owners}}) is None


def test_a_job_that_is_not_next_after_one_known_is_not_of_our_making() -> None:
    c = Cluster()
    c.prepare()
    c.reconcile()
    observed = c.observed()
    one = next(j for j in observed.jobs if j.component == names.WORKER)
    stray = JobView(f"{one.stem}-9", "other", names.WORKER, 9, START, owner_uid=one.owner_uid)
    after = JobView(f"{one.stem}-2", "next", names.WORKER, 2, START, owner_uid=one.owner_uid)
    seen = dataclasses.replace(observed, jobs=(stray, after, one))
    assert [a.number for a in attempts(seen, names.WORKER)] == [1, 2]


def test_a_service_belongs_to_its_controller() -> None:
    meta: dict[str, Any] = {"name": "s", "namespace": "team", "uid": "1"}
    assert ServiceView.from_object({"metadata": meta}) is None
    owned = {**meta, "ownerReferences": [{"uid": "o", "controller": True}]}
    assert ServiceView.from_object({"metadata": owned}) == ServiceView("s", "team", "1", "o")


def test_an_event_is_dated_by_what_its_sender_filled_in() -> None:
    first, last, series = rfc3339(START), rfc3339(START + 5), rfc3339(START + 9)
    body: dict[str, Any] = {"metadata": {"creationTimestamp": first}, "reason": "FailedCreate", "message": "w" * 5000}
    found = EventView.from_object(body)
    assert (found.reason, found.type, found.time, len(found.message)) == ("FailedCreate", "Normal", START, 1024)
    assert EventView.from_object({**body, "lastTimestamp": last}).time == START + 5
    assert EventView.from_object({**body, "eventTime": last}).time == START + 5
    assert (
        EventView.from_object({**body, "lastTimestamp": last, "series": {"lastObservedTime": series}}).time == START + 9
    )
