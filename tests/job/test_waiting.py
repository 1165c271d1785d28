"""Pods that wait: the words of scheduler, kubelet, quota and admission, each with its own reason and hint."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import Cluster
from finetune_api.exits import EXITS, Reason
from finetune_operator.job.observed import Refusal
from finetune_operator.plan import names
from finetune_operator.plan.views.event import EventView

POD = 'pods "ft-spam-filter-0a1b2c3d-1-0-{}" is forbidden: '
QUOTA = "exceeded quota: small, requested: requests.cpu=1, used: requests.cpu=200m, limited: requests.cpu=200m"
PSA = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'


def made() -> Cluster:
    c = Cluster()
    c.prepare()
    c.control()
    c.reconcile()
    return c


def waiting(pod: dict[str, Any], reason: str, message: str) -> None:
    pod["spec"]["nodeName"] = "node-1"
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}],
        "containerStatuses": [{"name": names.CONTAINER, "state": {"waiting": {"reason": reason, "message": message}}}],
    }


def test_the_schedulers_words() -> None:
    c = made()
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
    c.pod(1)["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    ]
    c.start(c.pod(0))
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Queued", "Unschedulable")
    assert words.rstrip(".") in (c.status.message or "")
    assert EXITS[Reason.UNSCHEDULABLE].hint in (c.status.message or "")
    c.start(c.pod(1))
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Starting", "Starting")


@pytest.mark.parametrize(
    ("why", "message", "reason"),
    [
        ("ErrImagePull", "failed to pull image", Reason.IMAGE_PULL_FAILED),
        ("ImagePullBackOff", 'Back-off pulling image "x"', Reason.IMAGE_PULL_FAILED),
        ("InvalidImageName", "couldn't parse image name", Reason.IMAGE_PULL_FAILED),
        ("ErrImageNeverPull", "not present with pull policy of Never", Reason.IMAGE_PULL_FAILED),
        ("CreateContainerConfigError", 'secret "s3" not found', Reason.SECRET_NOT_FOUND),
        (
            "CreateContainerConfigError",
            "couldn't find key AWS_ACCESS_KEY_ID in Secret team/s3",
            Reason.SECRET_NOT_FOUND,
        ),
        ("CreateContainerConfigError", 'configmap "mine" not found', Reason.CONTAINER_CONFIG_ERROR),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            Reason.CONTAINER_CONFIG_ERROR,
        ),
    ],
)
@pytest.mark.parametrize("component", [names.PREPARE, names.WORKER])
def test_the_kubelets_words(component: str, why: str, message: str, reason: Reason) -> None:
    c = Cluster()
    c.reconcile()
    c.control()
    if component == names.WORKER:
        c = made()
        c.start(c.pod(1))
    waiting(c.pod(0, component), why, message)
    c.reconcile()
    assert c.status.reason == reason
    assert c.phase == ("Pending" if component == names.PREPARE else "Starting")
    assert message in (c.status.message or "")
    assert EXITS[reason].hint in (c.status.message or "")
    assert c.status.failure is None, "it may heal"
    c.start(c.pod(0, component))
    c.reconcile()
    assert c.status.reason != reason


def test_two_ways_of_saying_that_the_image_cannot_be_pulled_are_one_status() -> None:
    c = made()
    c.start(c.pod(1))
    waiting(c.pod(0), "ErrImagePull", "registry.test/x:1: not found")
    c.reconcile()
    before = c.status
    waiting(c.pod(0), "ImagePullBackOff", 'Back-off pulling image "registry.test/x:1"')
    c.reconcile()
    assert c.status == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (QUOTA, Reason.QUOTA_EXCEEDED),
        (PSA, Reason.ADMISSION_DENIED),
        ('error looking up service account team/x: serviceaccount "x" not found', Reason.ADMISSION_DENIED),
    ],
)
def test_a_job_without_pods_has_its_events_read_after_ten_seconds(words: str, reason: Reason) -> None:
    c = Cluster()
    c.prepare()
    c.jobs(names.WORKER)[0]["status"]["startTime"] = c.jobs(names.WORKER)[0]["metadata"]["creationTimestamp"]
    found = c.reconcile()
    assert not found.read_events
    assert found.requeue_after == 10
    c.wait(10)
    found = c.reconcile()
    (name,) = found.read_events
    assert name == c.jobs(names.WORKER)[0]["metadata"]["name"]
    c.events[name] = (
        EventView("FailedCreate", "Error creating: " + POD.format("aaaaa") + "something older", time=c.now - 60),
        EventView("FailedCreate", "Error creating: " + POD.format("bbbbb") + words, time=c.now),
        EventView("SuccessfulCreate", "Created pod", time=c.now + 1),
    )
    found = c.reconcile()
    assert (c.phase, c.status.reason) == ("Queued", reason)
    assert words in (c.status.message or "")
    assert EXITS[reason].hint in (c.status.message or "")
    assert found.requeue_after is not None
    before = c.status
    c.events[name] = (EventView("FailedCreate", "Error creating: " + POD.format("ccccc") + words, time=c.now + 60),)
    c.reconcile()
    assert c.status == before, "a pod's random name must not write the status anew"


def test_one_worker_of_two_that_the_quota_leaves_out_is_seen_too() -> None:
    c = made()
    del c.pods[c.pod(1)["metadata"]["name"]]
    c.start(c.pod(0))
    c.wait(10)
    (name,) = c.reconcile().read_events
    c.events[name] = (EventView("FailedCreate", "Error creating: " + POD.format("x") + QUOTA, time=c.now),)
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Queued", Reason.QUOTA_EXCEEDED)


def test_a_volume_that_cannot_be_mounted_has_the_pods_events_read() -> None:
    c = made()
    c.start(c.pod(1))
    waiting(c.pod(0), "ContainerCreating", "")
    c.wait(60)
    (name,) = c.reconcile().read_events
    assert name == c.pod(0)["metadata"]["name"]
    c.events[name] = (
        EventView(
            "FailedMount", 'MountVolume.SetUp failed for volume "storage-ca" : secret "ca" not found', time=c.now
        ),
    )
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Starting", Reason.SECRET_NOT_FOUND)


def test_who_waits_long_is_asked_about_ever_more_seldom() -> None:
    c = made()
    waiting(c.pod(0), "ContainerCreating", "")
    waiting(c.pod(1), "ContainerCreating", "")
    end, asked, longest = c.now + 3 * 3600, 0, 0.0
    while c.now < end:
        found = c.reconcile()
        asked += bool(found.read_events)
        assert found.requeue_after is not None
        longest = max(longest, found.requeue_after)
        c.wait(found.requeue_after)
    assert asked < 60  # every 15 s it would be 720
    assert longest <= 300


def test_a_name_that_is_taken_is_shown_and_nothing_is_touched() -> None:
    c = Cluster()
    c.reconcile()
    _, name = c.created[0]
    c.objects.clear()
    foreign = {"kind": "ConfigMap", "metadata": {"name": name, "uid": "foreign"}, "data": {"a": "b"}}
    c.objects["ConfigMap", name] = foreign
    c.reconcile()
    assert c.objects == {("ConfigMap", name): foreign}
    assert next(x.status for x in c.status.conditions if x.type == "NameConflict") == "True"
    assert (c.phase, c.status.reason) == ("Pending", "NameConflict")
    assert name in (c.status.message or "")
    assert c.last
    assert c.last.create  # when it is tried again is the reconciler's affair
    assert c.notes.count("NameConflict") == 1
    del c.objects["ConfigMap", name]
    c.reconcile()
    c.reconcile()
    assert len(c.jobs()) == 1
    assert next(x.status for x in c.status.conditions if x.type == "NameConflict") == "False"
    assert c.status.reason != "NameConflict"


def test_objects_that_the_api_server_finds_invalid_end_the_job() -> None:
    c = Cluster()
    c.refuse["Job"] = (
        422,
        (
            "Job.batch is invalid: spec.template.spec.containers[0].resources.requests: must be less than or equal to"
            " cpu limit"
        ),
    )
    c.reconcile()
    assert c.status.failure
    assert c.status.failure.reason == Reason.INVALID_CONFIG
    assert "less than or equal to cpu limit" in c.status.failure.message


def test_objects_that_are_forbidden_now_are_tried_again() -> None:
    c = Cluster()
    c.refuse["Job"] = (403, 'jobs.batch "ft-x" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1')
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Pending", Reason.QUOTA_EXCEEDED)
    assert c.last
    assert c.last.create  # when it is tried again is the reconciler's affair
    c.refuse.clear()
    c.reconcile()
    assert len(c.jobs()) == 1


def test_no_words_are_needed_while_pods_are_just_coming() -> None:
    c = made()
    assert c.status.reason == "Starting"
    assert Refusal("Job", "x", 403, "m").code == 403


def test_events_about_other_things_say_nothing_of_a_mount() -> None:
    c = made()
    for pod in (c.pod(0), c.pod(1)):
        waiting(pod, "ContainerCreating", "")
    c.wait(60)
    event = EventView("FailedMount", 'secret "tls" not found', time=c.now)
    c.events = {c.pod(0)["metadata"]["name"]: (EventView("Pulled", "image is there", time=c.now + 1), event)}
    c.reconcile()
    assert c.status.reason == Reason.SECRET_NOT_FOUND
