"""The store: newest wins, ghosts go, strangers stay out, and nothing that did not change causes work."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest

from fakecluster.driver import KEY, NAMESPACE, SETTINGS, SPEC, child
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD, SERVICE
from finetune_operator.plan.plan import Create
from finetune_operator.store.store import Store

UID = "11111111-u"


def resource(
    version: int = 1, *, name: str = "spam-filter", uid: str = UID, status: dict[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    return {
        "metadata": (
            {
                "name": name,
                "namespace": NAMESPACE,
                "uid": uid,
                "resourceVersion": str(version),
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            }
            | meta
        ),
        "spec": copy.deepcopy(SPEC),
        "status": status or {},
    }


@pytest.fixture
def store() -> Store:
    """A job with the Job j1 of its first attempt."""
    store = Store()
    assert store.put(FINETUNE_JOB, resource()) == {KEY}
    assert store.put(JOB, child("Job", "", UID, uid="j1", version=2)) == {KEY}
    return store


def pod(name: str, *, uid: str, version: int, **options: Any) -> dict[str, Any]:
    return child("Pod", name, UID, uid=uid, version=version, **{"controller": "j1"} | options)


def pods(store: Store) -> list[str]:
    observed = store.snapshot(KEY, SETTINGS, 0)
    assert observed
    return [pod.name for pod in observed.pods]


def test_the_echo_of_a_status_write_causes_no_work(store: Store) -> None:
    written = resource(5, status={"phase": "Running"})
    assert store.put(FINETUNE_JOB, written) == set()  # the answer to the write
    assert store.put(FINETUNE_JOB, written) == set()  # its echo in the watch
    assert store.phase(KEY) == "Running"


def test_a_change_of_the_spec_or_its_metadata_causes_work(store: Store) -> None:
    changed = resource(5, generation=2)
    changed["spec"]["suspend"] = True
    assert store.put(FINETUNE_JOB, changed) == {KEY}
    assert store.put(FINETUNE_JOB, resource(6, deletionTimestamp="2026-01-01T00:00:00Z")) == {KEY}


def test_an_older_version_never_replaces_a_newer_one(store: Store) -> None:
    store.put(FINETUNE_JOB, resource(9, status={"phase": "Running"}))
    assert store.put(FINETUNE_JOB, resource(8, status={"phase": "Pending"})) == set()
    assert store.phase(KEY) == "Running"
    store.put(POD, pod("p", uid="p1", version=10))
    stale = pod("p", uid="p1", version=9)
    stale["status"]["phase"] = "Pending"
    assert store.put(POD, stale) == set()


def test_a_child_wakes_its_job_only_when_something_that_matters_changed(store: Store) -> None:
    seen = pod("p", uid="p1", version=10)
    assert store.put(POD, seen) == {KEY}
    seen = copy.deepcopy(seen)
    seen["metadata"]["resourceVersion"] = "11"
    seen["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    assert store.put(POD, seen) == set()
    assert store.drop(POD, "p1") == {KEY}
    assert pods(store) == []


def test_a_child_seen_before_its_job_is_not_lost() -> None:
    store = Store()
    assert store.put(POD, pod("p", uid="p1", version=10)) == set()
    store.put(FINETUNE_JOB, resource())
    assert store.put(JOB, child("Job", "", UID, uid="j1", version=2)) == {KEY}
    assert pods(store) == ["p"]


def test_a_relist_removes_what_was_deleted_while_the_watch_was_away(store: Store) -> None:
    for name in ("a", "b"):
        store.put(POD, pod(name, uid=name, version=10))
    before = store.begin_relist(POD)
    store.put(POD, pod("a", uid="a", version=10))
    assert store.end_relist(POD, before, {"a"}) == {KEY}
    assert pods(store) == ["a"]


def test_a_relist_keeps_what_was_made_while_it_ran(store: Store) -> None:
    before = store.begin_relist(POD)
    store.put(POD, pod("new", uid="new", version=12))
    store.end_relist(POD, before, set())
    assert pods(store) == ["new"]


def test_a_relist_does_not_revive_what_was_deleted_while_it_ran(store: Store) -> None:
    seen = pod("a", uid="a", version=10)
    store.put(POD, seen)
    before = store.begin_relist(POD)
    store.gone(POD, pod("a", uid="a", version=11))
    assert store.put(POD, seen) == set()
    store.end_relist(POD, before, {"a"})
    assert pods(store) == []


def test_a_list_does_not_revive_what_the_watch_saw_go_before_it_was_ever_seen(store: Store) -> None:
    gone = pod("a", uid="a", version=12)
    assert store.gone(POD, gone) == set()
    assert store.put(POD, pod("a", uid="a", version=10)) == set()
    assert pods(store) == []


def test_a_relist_of_pods_leaves_jobs_alone(store: Store) -> None:
    before = store.begin_relist(POD)
    store.end_relist(POD, before, set())
    observed = store.snapshot(KEY, SETTINGS, 0)
    assert observed
    assert [j.uid for j in observed.jobs] == ["j1"]


def test_a_job_deleted_and_made_again_by_the_same_name_starts_with_nothing(store: Store) -> None:
    create = Create({"kind": "Job", "metadata": {"name": "j"}})
    assert store.memory(UID).creates_done(1, (create,), ("taken",), (), 0.0)
    store.put(POD, pod("p", uid="p1", version=10))
    assert store.put(FINETUNE_JOB, resource(20, uid="22222222-u")) == {KEY}
    observed = store.snapshot(KEY, SETTINGS, 0)
    assert observed
    assert (observed.conflicts, observed.pods, observed.job.uid) == ((), (), "22222222-u")
    assert store.drop(FINETUNE_JOB, UID) == set()  # the late event of the first one
    assert store.uid(KEY) == "22222222-u"


def test_a_job_that_merely_carries_our_labels_is_not_this_jobs(store: Store) -> None:
    assert store.put(JOB, child("Job", "", UID, uid="j2", version=10, attempt=2, controller="someone-else")) == set()
    observed = store.snapshot(KEY, SETTINGS, 0)
    assert observed
    assert [j.uid for j in observed.jobs] == ["j1"]
    store.put(POD, pod("p", uid="p1", version=11, attempt=2, controller="j2"))
    assert store.pod(UID, "p1") is None


def test_a_pod_whose_job_is_gone_already_is_still_known_as_ours(store: Store) -> None:
    store.put(POD, pod("p", uid="p1", version=11))
    store.drop(JOB, "j1")
    assert store.pod(UID, "p1") is not None


def restarted(**status: Any) -> Store:
    """The store of a new operator, which has never seen the Job of the first attempt."""
    store = Store()
    store.put(FINETUNE_JOB, resource(status={"attempt": 1} | status))
    return store


def leaving(owner_kind: str = "Job", owner_name: str = "ft-spam-filter-11111111-1") -> dict[str, Any]:
    """A pod that is being deleted, whose controller the store has never seen."""
    found = pod("p", uid="p1", version=11, controller="unknown")
    found["metadata"]["ownerReferences"][0] |= {"kind": owner_kind, "name": owner_name}
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    return found


def test_after_a_restart_a_pod_that_leaves_is_known_by_the_name_of_its_job() -> None:
    store = restarted()
    store.put(POD, leaving())
    assert store.pod(UID, "p1") is not None
    assert pods(store) == ["p"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Job", "ft-spam-filter-11111111-2"),  # an attempt that was never made
        ("Job", "ft-spam-filter-22222222-1"),
        ("Job", "another"),
        ("ReplicaSet", "ft-spam-filter-11111111-1"),
    ],
)
def test_after_a_restart_a_pod_of_any_other_controller_stays_a_stranger(kind: str, name: str) -> None:
    store = restarted()
    store.put(POD, leaving(kind, name))
    assert store.pod(UID, "p1") is None
    assert pods(store) == []


def test_a_pod_that_leaves_is_a_stranger_while_another_job_by_that_name_is_there(store: Store) -> None:
    store.put(FINETUNE_JOB, resource(5, status={"attempt": 1}))
    store.put(POD, leaving())
    assert store.pod(UID, "p1") is None
    assert pods(store) == []


def test_a_pod_that_stays_though_its_job_was_never_seen_is_a_stranger() -> None:
    store = restarted()
    stays = leaving()
    del stays["metadata"]["deletionTimestamp"]
    store.put(POD, stays)
    assert store.pod(UID, "p1") is None
    assert pods(store) == []


def test_a_child_that_is_orphaned_is_ours_no_more(store: Store) -> None:
    store.put(POD, pod("p", uid="p1", version=10))
    orphan = pod("p", uid="p1", version=11)
    del orphan["metadata"]["ownerReferences"]
    assert store.put(POD, orphan) == {KEY}
    assert pods(store) == []


def test_a_service_belongs_to_whoever_controls_it_now(store: Store) -> None:
    def service(owner: str | None) -> dict[str, Any]:
        owners = [{"uid": owner, "controller": True}] if owner else []
        return {
            "metadata": {
                "name": "s",
                "namespace": NAMESPACE,
                "uid": "s1",
                "resourceVersion": "9",
                "ownerReferences": owners,
            }
        }

    def held() -> list[str]:
        observed = store.snapshot(KEY, SETTINGS, 0)
        assert observed
        return [s.name for s in observed.services]

    for owner, found in ((UID, ["s"]), ("another", []), (UID, ["s"]), (None, [])):
        store.put(SERVICE, service(owner))
        assert held() == found, owner


def test_an_answer_about_a_deleted_job_does_not_replace_its_namesake(store: Store) -> None:
    store.drop(FINETUNE_JOB, UID)
    store.put(FINETUNE_JOB, resource(10, uid="22222222-u"))
    assert store.put(FINETUNE_JOB, resource(6)) == set()  # the answer to a status write, read after both watch events
    assert store.uid(KEY) == "22222222-u"


def test_an_answer_about_a_deleted_job_does_not_bring_it_back(store: Store) -> None:
    store.gone(FINETUNE_JOB, resource(9))
    assert store.put(FINETUNE_JOB, resource(8)) == set()
    assert store.uid(KEY) is None


def test_jobs_with_the_same_output_see_each_other_and_wake_each_other_when_one_ends(store: Store) -> None:
    other = resource(2, name="other", uid="22222222-u")
    other["spec"]["output"]["uri"] += "/"
    assert store.put(FINETUNE_JOB, other) == {KEY, KEY._replace(name="other")}
    observed = store.snapshot(KEY, SETTINGS, 0)
    assert observed
    assert [(r.name, r.active) for r in observed.rivals] == [("other", True)]
    ended = copy.deepcopy(other)
    ended["metadata"]["resourceVersion"] = "3"
    ended["status"] = {"phase": "Succeeded"}
    assert store.put(FINETUNE_JOB, ended) == {KEY}
    assert store.drop(FINETUNE_JOB, "22222222-u") == {KEY._replace(name="other")}  # finished, it was in nobody's way


def test_a_new_job_wakes_none_of_the_finished_ones_of_its_output() -> None:
    store = Store()
    for n in range(500):
        store.put(FINETUNE_JOB, resource(n + 1, name=f"old-{n}", uid=f"{n:08x}-u", status={"phase": "Failed"}))
    assert store.put(FINETUNE_JOB, resource(900)) == {KEY}
    observed = store.snapshot(KEY, SETTINGS, 0)
    assert observed
    assert observed.rivals == ()
    assert store.put(FINETUNE_JOB, resource(901, name="next", uid="99999999-u")) == {KEY, KEY._replace(name="next")}


def test_jobs_whose_outputs_lie_within_each_other_see_each_other(store: Store) -> None:
    inner = resource(2, name="inner", uid="22222222-u")
    inner["spec"]["output"]["uri"] += "/v2"
    assert store.put(FINETUNE_JOB, inner) == {KEY, KEY._replace(name="inner")}
    for key, other in ((KEY, "s3://models/spam-filter/v2"), (KEY._replace(name="inner"), "s3://models/spam-filter")):
        observed = store.snapshot(key, SETTINGS, 0)
        assert observed
        assert [r.uri for r in observed.rivals] == [other]


def test_a_job_of_another_namespace_is_no_rival_whatever_it_writes_to(store: Store) -> None:
    other = resource(2, name="other", uid="22222222-u")
    other["metadata"]["namespace"] = "elsewhere"
    other["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    other["spec"]["suspend"] = True
    assert store.put(FINETUNE_JOB, other) == {KEY._replace(namespace="elsewhere", name="other")}
    for key in (KEY, KEY._replace(namespace="elsewhere", name="other")):
        observed = store.snapshot(key, SETTINGS, 0)
        assert observed
        assert observed.rivals == ()
    assert store.drop(FINETUNE_JOB, "22222222-u") == {KEY._replace(namespace="elsewhere", name="other")}


def test_the_projection_of_a_job_with_its_history_stays_small(store: Store) -> None:
    history = [{"step": i * 10, "loss": round(2.0 / (i + 1), 4)} for i in range(128)]
    raw = resource(9, status={"phase": "Succeeded", "history": history, "message": "done"})
    raw["metadata"]["managedFields"] = [{"fieldsV1": {"f:spec": {str(i): {} for i in range(500)}}}]
    raw["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 4000}
    store.put(FINETUNE_JOB, raw)
    size = sys.getsizeof(store._records[KEY].packed)
    for n in range(2):
        for kind, name in ((JOB, "Job"), (POD, "Pod")):
            store.put(kind, child(name, f"{name}{n}", UID, uid=f"{name}{n}", version=10))
    assert size < 2500
    assert store.snapshot(KEY, SETTINGS, 0).job.status.history[127].step == 1270  # type: ignore[union-attr]
