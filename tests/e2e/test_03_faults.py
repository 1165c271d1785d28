"""Killed worker, killed operator, restarted API server: the job succeeds, no step is lost or doubled, and it goes on fast."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import time

import pytest

from .cluster import SYSTEM, Job, env, wait
from .conftest import Place
from .test_04_suspend import LONG, trace


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def running_workers(job: Job) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in job.workers()
        if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
    ]


def test_kills_of_worker_operator_and_api_server_lose_nothing(place: Place) -> None:
    cluster = place.cluster
    calm = place.job("calm", **LONG)
    calm.wait_succeeded(420)
    job = place.job("beaten", **LONG)
    job.wait_step(60, 300)

    victim = running_workers(job)[-1]
    before = job.status
    cluster.kubectl("delete", "pod", victim, "-n", place.name, "--grace-period=0", "--force", "--wait=false")
    killed = time.time()
    detected = wait("the next attempt", lambda: time.time() if job.status.get("attempt") == 2 else None, 60, every=0.1)
    scheduled = wait("two new workers", lambda: time.time() if len(running_workers(job)) == 2 else None, 120, every=0.2)
    wait("a step of attempt 2", lambda: job.status["attempts"][0].get("lastStep"), 120, every=0.2)
    stepped = time.time()
    started = max(
        moment(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]) for pod in job.workers()[-2:]
    )
    parts = {
        "detect": detected - killed,
        "schedule": scheduled - detected,
        "start to first step seen": stepped - started,
        "all": stepped - killed,
    }
    print("pod death to next step, seconds:", json.dumps({name: round(value, 1) for name, value in parts.items()}))
    print("by the trainer:", json.dumps(job.status["attempts"][0].get("seconds")))
    lost = job.status["attempts"][1]
    assert lost["reason"] in ("PodDeleted", "Crashed", "PeerLost"), lost
    assert lost["lostSteps"] <= before["progress"]["step"]

    cluster.kubectl(
        "delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/name=finetune-operator", "--grace-period=0", "--force"
    )
    hooks = {name: env(name) for name in ("E2E_RESTART_KUBELET", "E2E_RESTART_APISERVER")}
    for command in filter(None, hooks.values()):
        subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=180)
        wait("the API server", lambda: "ok" in cluster.kubectl("get", "--raw", "/readyz", check=False), 60)
    status = job.wait_succeeded(420)
    assert status["attempt"] == 2, "neither the operator nor the control plane took the workers along"
    assert status["test"] == calm.status["test"]
    assert trace(place, "beaten") == trace(place, "calm")
    missing = [name for name, command in hooks.items() if not command]
    if missing:
        pytest.skip(f"all else passed; no command in {', '.join(missing)}")


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
