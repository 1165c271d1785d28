"""Killed worker, killed operator, restarted API server: the job succeeds, no row is lost or doubled, and it goes on
fast.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import subprocess
import time
from collections.abc import Callable

import pytest

from .cluster import SYSTEM, Job, Object, env, wait
from .conftest import BUCKET, Place
from .runs import LOADS, Load, check_every_row_once, cursors, trace

DEATH_TO_STEP = 60.0
"""Seconds from the death of a pod to the next step; those without imports and container start ("ours") are for reading.
"""


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def running_workers(job: Job, attempt: int) -> list[Object]:
    return [
        pod
        for pod in job.workers()
        if pod["metadata"]["labels"]["finetune-operator.io/attempt"] == str(attempt)
        and pod["status"]["phase"] == "Running"
        and not pod["metadata"].get("deletionTimestamp")
    ]


@dataclasses.dataclass(frozen=True)
class Strike:
    """A worker's death, and what came of it: times are seconds since the epoch, `first` is the step made first
    again.
    """

    how: str
    attempt: int
    at: float
    detected: float
    ran: float
    first: int


def delete_pod(job: Job, pod: str) -> None:
    job.cluster.kubectl("delete", "pod", pod, "-n", job.namespace, "--grace-period=0", "--force", "--wait=false")


def kill_process(job: Job, pod: str) -> None:
    """SIGKILL for all that the container's first process has started: nothing can be saved."""
    script = (
        "import os; [os.kill(int(p), 9) for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]"
    )
    job.cluster.kubectl("exec", pod, "-n", job.namespace, "--", "python", "-c", script)


def strike(job: Job, load: Load, attempt: int, how: Callable[[Job, str], None]) -> Strike:
    """Let a worker of this attempt die, wait for the first step of the next, and check what was lost."""
    victim = running_workers(job, attempt)[-1]["metadata"]["name"]
    before = job.status
    at = time.time()
    how(job, victim)
    wait("the next attempt", lambda: job.status.get("attempt") == attempt + 1, 60, every=0.1)
    detected = time.time()
    pods = wait(
        "new workers", lambda: two if len(two := running_workers(job, attempt + 1)) == 2 else None, 120, every=0.2
    )
    ran = max(moment(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]) for pod in pods)
    wait("a step of the next attempt", lambda: job.status["attempts"][0].get("lastStep"), 120, every=0.2)
    now, lost = job.status["attempts"][:2]
    print(f"{how.__name__}: attempt {attempt} ended as {lost['reason']}, {lost['lostSteps']} steps lost")
    known = max((each["step"] for each in before.get("checkpoints", [])), default=0)
    assert now["fromStep"] > 0, "it starts again from a checkpoint, not from the first step"
    assert now["fromStep"] >= known, f"status listed a checkpoint of step {known} before"
    assert lost["lostSteps"] == lost["lastStep"] - now["fromStep"]
    assert lost["reason"] in ("PodDeleted", "Crashed", "PeerLost", "Interrupted"), lost
    if how is delete_pod and now["fromStep"] % load.every:  # even without grace there are two seconds after SIGTERM
        assert lost["lostSteps"] == 0, lost
    else:
        assert now["fromStep"] % load.every == 0
        # those since the last checkpoint, and an interval whose upload the kill may have cut
        assert lost["lostSteps"] < 2 * load.every, lost
    if how is kill_process:
        assert lost["reason"] == "Crashed", lost
    return Strike(how.__name__, attempt + 1, at, detected, ran, now["fromStep"] + 1)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_kills_of_worker_operator_and_api_server_lose_nothing(
    place: Place, load: Load, request: pytest.FixtureRequest
) -> None:
    load.fetch(request)
    cluster = place.cluster
    calm = place.job("calm", **load.changes)
    undisturbed = calm.wait_succeeded(load.patience)
    job = place.job("beaten", **load.changes)
    job.wait_step(load.disturb_at, 300)
    strikes = [strike(job, load, 1, delete_pod)]
    job.wait_step(strikes[0].first + load.every + load.every // 2, 300)
    strikes.append(strike(job, load, 2, kill_process))

    cluster.kubectl(
        "delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/name=finetune-operator", "--grace-period=0", "--force"
    )
    hooks = {name: env(name) for name in ("E2E_RESTART_KUBELET", "E2E_RESTART_APISERVER")}
    for command in filter(None, hooks.values()):
        subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=180)
        wait("the API server", lambda: "ok" in cluster.kubectl("get", "--raw", "/readyz", check=False), 60)
    status = job.wait_succeeded(load.patience)
    assert status["attempt"] == 3, "neither the operator nor the control plane took the workers along"
    assert status["test"] == undisturbed["test"]
    assert trace(place, "beaten") == trace(place, "calm")
    check_every_row_once(place, "calm", undisturbed)
    check_every_row_once(place, "beaten", status)
    stood, other = cursors(place, "beaten"), cursors(place, "calm")
    assert {step: stood[step] for step in other} == other

    for each in strikes:
        parts = by_part(place, status, each)
        print(f"{load.name}, {each.how}: pod death to next step, seconds: {json.dumps(parts)}")
        assert parts["all"] <= DEATH_TO_STEP, parts
    missing = [name for name, command in hooks.items() if not command]
    if missing:
        pytest.skip(f"all else passed; no command in {', '.join(missing)}")


def by_part(place: Place, status: Object, each: Strike) -> dict[str, float]:
    """Seconds from the death to the end of the first step made again, by part; the API server's stamps are whole
    seconds.
    """
    log = place.storage.read(BUCKET, place.output("beaten") + "/events.jsonl").decode().splitlines()
    stepped = next(e["time"] for e in map(json.loads, log) if e["kind"] == "step" and e["step"] == each.first)
    spent = next(a["seconds"] for a in status["attempts"] if a["number"] == each.attempt)
    parts = {
        "detect": each.detected - each.at,
        "schedule": max(0.0, each.ran - each.detected),
        "import": spent["import"],
        "load": spent.get("load", 0.0),
    }
    parts["first step"] = max(0.0, stepped - each.ran - parts["import"] - parts["load"])
    whole = stepped - each.at
    return {
        **{part: round(seconds, 1) for part, seconds in parts.items()},
        "all": round(whole, 1),
        "ours": round(whole - parts["schedule"] - parts["import"], 1),
    }


def test_rank_is_the_pods_index_with_twelve_pods(place: Place) -> None:
    small = {"requests": {"cpu": "50m", "memory": "300Mi"}, "limits": {"memory": "1Gi"}}
    job = place.job(
        "twelve", workers__replicas=12, workers__resources=small, training__maxSteps=3, training__globalBatchSize=24
    )
    job.wait_succeeded(600)
    ranks = {}
    for pod in job.workers():
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        log = job.logs(pod["metadata"]["name"])
        ranks[int(index)] = re.findall(r"rank (\d+) of 12 has joined", log)
    assert ranks == {index: [str(index)] for index in range(12)}
