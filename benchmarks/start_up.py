"""How long a job takes from `kubectl apply` to its first step, by part. (The imports' share is printed by the image's
e2e test.)

    make bench NAME=start_up ARGS=examples/quickstart.yaml

Applies the manifest to the cluster of KUBECONFIG, watches its pods and its status, deletes the job again and prints one
JSON line. Times are seconds since the apply, taken from the API server's and the kubelet's own stamps (whole seconds)
for pods, and from this process's clock for the first step.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune_api import API_VERSION, GROUP, PLURAL, VERSION
from finetune_cli.manifest import load


def seconds(stamp: datetime | None, began: float) -> float | None:
    return None if stamp is None else round(stamp.timestamp() - began, 1)


def running_since(pod: Any) -> datetime | None:
    for status in pod.status.container_statuses or []:
        state = status.state.running or status.state.terminated
        if state is not None:
            return state.started_at
    return None


def ended_at(pod: Any) -> datetime | None:
    for status in pod.status.container_statuses or []:
        if status.state.terminated is not None:
            return status.state.terminated.finished_at
    return None


def measure(path: Path, timeout: float) -> dict[str, Any]:
    from kubernetes import client, config

    config.load_kube_config()
    objects, core = client.CustomObjectsApi(), client.CoreV1Api()
    body = load(str(path))[0].data
    namespace = body["metadata"].setdefault("namespace", "default")
    name = body["metadata"]["name"]
    where = (GROUP, VERSION, namespace, PLURAL)
    assert body["apiVersion"] == API_VERSION
    began = time.time()
    made = objects.create_namespaced_custom_object(*where, body)
    first_step = None
    try:
        while time.time() - began < timeout:
            status = objects.get_namespaced_custom_object(*where, name).get("status", {})
            if status.get("progress", {}).get("step", 0) > 0 or status.get("phase") in ("Succeeded", "Failed"):
                first_step = round(time.time() - began, 1)
                break
            time.sleep(0.2)
        pods = core.list_namespaced_pod(
            namespace, label_selector=f"finetune-operator.io/job-uid={made['metadata']['uid']}"
        ).items
        prepare = [p for p in pods if p.metadata.labels["finetune-operator.io/component"] == "prepare"]
        workers = [p for p in pods if p.metadata.labels["finetune-operator.io/component"] == "worker"]
        running = [running_since(p) for p in workers]
        prepared = max(filter(None, map(ended_at, prepare)), default=None)
        all_running = max(running) if running and all(running) else None  # type: ignore[type-var]
        return {
            "benchmark": "start_up",
            "phase": status.get("phase"),
            "prepare_running_s": seconds(min(filter(None, map(running_since, prepare)), default=None), began),
            "prepare_ended_s": seconds(prepared, began),
            "workers_running_s": seconds(all_running, began),
            "prepare_ended_to_workers_running_s": None
            if None in (prepared, all_running)
            else (all_running - prepared).total_seconds(),  # type: ignore[operator]
            "first_step_reported_s": first_step,
            "workers": len(workers),
        }
    finally:
        objects.delete_namespaced_custom_object(*where, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--timeout", type=float, default=600)
    arguments = parser.parse_args()
    result = measure(arguments.manifest, arguments.timeout)
    print(json.dumps(result))
    sys.exit(0 if result["first_step_reported_s"] is not None else 1)


if __name__ == "__main__":
    main()
