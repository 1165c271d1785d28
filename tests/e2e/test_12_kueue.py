"""Under Kueue: a job waits for its admission, gives its place to a job of higher priority, and goes on where it was.

E2E_KUEUE installs it, unless it is there.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from .cluster import Cluster, Job, Object, env, wait
from .conftest import Chart, Place
from .runs import check_every_row_once, trace

API = "kueue.x-k8s.io/v1beta2"
CRD = "clusterqueues.kueue.x-k8s.io"


def kueue_object(kind: str, name: str, **fields: object) -> Object:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, **fields}


@pytest.fixture(scope="module")
def kueue(cluster: Cluster, chart: Chart) -> Iterator[Cluster]:
    """A cluster queue with room for one job's workers, in which higher priorities preempt lower ones."""
    there = cluster.kubectl("get", "crd", CRD, "-o", "name", check=False).startswith("customresourcedefinition")
    command = env("E2E_KUEUE")
    if not there and not command:
        pytest.skip("no Kueue in the cluster, and no command in E2E_KUEUE that installs it")
    if command:
        subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=180)
    resources = [{"name": "cpu", "nominalQuota": "300m"}, {"name": "memory", "nominalQuota": "4Gi"}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": "e2e", "resources": resources}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group], "preemption": {"withinClusterQueue": "LowerPriority"}}
    objects = [
        kueue_object("ResourceFlavor", "e2e"),
        kueue_object("ClusterQueue", "e2e", spec=spec),
        kueue_object("WorkloadPriorityClass", "e2e-high", value=1000),
    ]
    cluster.apply(*objects)
    yield cluster
    for each in reversed(objects):
        cluster.kubectl("delete", each["kind"], each["metadata"]["name"], "--wait=false", check=False)


def queued(place: Place, name: str, queue: str, priority: str | None = None, **changes: object) -> Job:
    manifest = place.manifest(name, **changes)
    labels = {"kueue.x-k8s.io/queue-name": queue}
    manifest["metadata"]["labels"] = labels | ({"kueue.x-k8s.io/priority-class": priority} if priority else {})
    place.cluster.apply(manifest, namespace=place.name)
    return Job(place.cluster, place.name, name)


def test_admission_preemption_and_readmission_keep_every_step_and_are_told(place: Place, kueue: Cluster) -> None:
    cluster = place.cluster
    for queue in ("team", "urgent"):
        held = {"clusterQueue": "e2e", "stopPolicy": "Hold"}
        cluster.apply(kueue_object("LocalQueue", queue, spec=held), namespace=place.name)
    urgent = queued(place, "high", "urgent", "e2e-high", training__maxSteps=20)
    job = queued(place, "low", "team", training__epochs=60, checkpoints__everySteps=100)
    status = job.wait("the queue", lambda s: s.get("reason") == "WaitingForQueue", 120)
    assert status["phase"] == "Queued"
    assert "team" in status["message"]
    urgent.wait("the queue", lambda s: s.get("reason") == "WaitingForQueue", 120)
    admit(cluster, "localqueue", "team", "-n", place.name)
    job.wait_step(60, 300)

    admit(cluster, "localqueue", "urgent", "-n", place.name)
    status = job.wait("the preemption", lambda s: s["attempts"][0].get("reason"), 180)
    told = status["attempts"][0]
    assert told["reason"] == "Preempted"
    assert "queue team took the workers' place back" in told["message"]
    assert (status["phase"], status["reason"]) == ("Queued", "WaitingForQueue")
    assert "eta" not in status["display"]
    events = [e["reason"] for e in cluster.items("events", place.name) if e["involvedObject"]["name"] == "low"]
    assert "Preempted" in events
    job.wait("Kueue's own words", lambda s: "Preempted to accommodate" in s["attempts"][-1]["message"], 60)
    urgent.wait_succeeded(300)

    status = job.wait_succeeded(400)
    now, before = status["attempts"]
    assert (now["number"], before["number"], status["attempt"], status["restarts"]) == (1, 1, 1, 1)
    assert before["reason"] == "Preempted"
    assert before["fromStep"] == 0
    assert before["lastStep"] >= 60
    assert now["fromStep"] == before["lastStep"], "the checkpoint is written when the pods are told to stop"
    assert before["lostSteps"] == 0
    assert before["seconds"]["train"] > 0
    assert now["startTime"] == before["endTime"]
    steps = trace(place, "low")
    assert sorted(steps) == list(range(1, status["resolved"]["totalSteps"] + 1))
    check_every_row_once(place, "low", status)
    print(
        f"kueue: preempted after step {before['lastStep']}, {now['seconds']['queue']:.0f} s in the queue, went on from"
        " there"
    )


def admit(cluster: Cluster, *queue: str, policy: str = "None") -> None:
    """Let a queue admit what waits in it, or hold it. `queue`: its kind and name, and -n its namespace."""
    patch = json.dumps({"spec": {"stopPolicy": policy}})
    cluster.kubectl("patch", *queue, "--type=merge", "-p", patch)


def test_a_prepare_step_in_a_namespaces_default_queue_says_that_it_waits(place: Place, kueue: Cluster) -> None:
    """Kueue puts Jobs that name no queue into the one called default."""
    cluster = place.cluster
    cluster.apply(kueue_object("LocalQueue", "default", spec={"clusterQueue": "e2e"}), namespace=place.name)
    look = ("create", "job", "probe", "--image=none", "--dry-run=server", "-o", "json", "-n", place.name)
    wait("Kueue to know the queue", lambda: "kueue.x-k8s.io/queue-name" in cluster.kubectl(*look), 30)
    admit(cluster, "clusterqueue", "e2e", policy="Hold")
    job = place.job("defaulted", training__maxSteps=5)
    status = job.wait("the queue", lambda s: s.get("reason") == "WaitingForQueue", 60)
    assert status["phase"] == "Queued"
    assert "queue default has not admitted the prepare step" in status["message"]
    admit(cluster, "clusterqueue", "e2e")
    job.wait_succeeded(300)
