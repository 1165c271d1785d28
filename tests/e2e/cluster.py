"""The cluster under test, through kubectl and helm as a user has them; and one FineTuneJob as a thing to wait for.

Waiting is by polling the object: what a test waits for is what a user would see. When a wait fails, everything that
helps to understand it is printed: status, events, pods, their logs and the operator's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
SYSTEM = "finetune-system"
FINISHED = {"Succeeded", "Failed"}


class Timeout(AssertionError):
    """Something did not come true in time; the message says what was seen instead."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """kubectl and helm against the cluster of KUBECONFIG."""

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        done = subprocess.run(
            ["kubectl", *args], input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)} failed ({done.returncode}): {done.stderr.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        return json.loads(self.kubectl("get", kind, name, "-o", "json", *_in(namespace)))

    def items(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        where = _in(namespace) if namespace else ["-A"]
        return json.loads(self.kubectl("get", kind, "-o", "json", *where, *(["-l", selector] if selector else [])))[
            "items"
        ]

    def apply(self, *objects: Object, namespace: str | None = None) -> None:
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", *_in(namespace), stdin=document)

    def helm(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(["helm", *args], capture_output=True, text=True, check=False, timeout=300)
        if check and done.returncode:
            raise AssertionError(
                f"helm {' '.join(args)} failed ({done.returncode}): {done.stderr.strip()} {done.stdout.strip()}"
            )
        return done.stdout + done.stderr

    def operator_log(self, lines: int = 60) -> str:
        return self.kubectl("logs", "-n", SYSTEM, "deployment/finetune-operator", f"--tail={lines}", check=False)


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def wait(what: str, probe: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
    """Poll until `probe` gives something true, and return that. Raises Timeout with the last value or error."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            last = probe()
        except AssertionError as error:
            if isinstance(error, Timeout):
                raise
            last = error
        else:
            if last:
                return last
        if time.monotonic() > end:
            raise Timeout(f"{what}: not within {seconds:.0f} s; last seen: {last}")
        time.sleep(every)


@dataclasses.dataclass(frozen=True)
class Job:
    """A FineTuneJob in the cluster."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def object(self) -> Object:
        return self.cluster.get("finetunejob", self.name, self.namespace)

    @property
    def status(self) -> Object:
        return self.object.get("status") or {}

    @property
    def uid(self) -> str:
        return self.object["metadata"]["uid"]

    def pods(self) -> list[Object]:
        """All pods of this job, oldest first."""
        pods = self.cluster.items("pods", self.namespace, f"finetune-operator.io/job-uid={self.uid}")
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def workers(self) -> list[Object]:
        """Worker pods: those of an attempt, not the prepare pod."""
        return [pod for pod in self.pods() if not is_prepare(pod)]

    def wait(self, what: str, probe: Callable[[Object], Any], seconds: float) -> Object:
        """Wait until `probe(status)` holds; a job that ends otherwise ends the wait. Returns the status."""

        def look() -> Object | None:
            status = self.status
            if probe(status):
                return status
            if status.get("phase") in FINISHED:
                raise Timeout(
                    f"{self.name} is {status['phase']}: {json.dumps(status.get('failure'))} while waiting for {what}"
                )
            return None

        try:
            return wait(f"{self.namespace}/{self.name}: {what}", look, seconds)
        except Timeout:
            print(self.explain())
            raise

    def wait_phase(self, phase: str, seconds: float) -> Object:
        return self.wait(f"phase {phase}", lambda status: status.get("phase") == phase, seconds)

    def wait_step(self, step: int, seconds: float) -> Object:
        """Wait until the status reports at least this optimizer step."""
        return self.wait(f"step {step}", lambda status: (status.get("progress") or {}).get("step", 0) >= step, seconds)

    def wait_succeeded(self, seconds: float) -> Object:
        return self.wait_phase("Succeeded", seconds)

    def wait_failed(self, seconds: float) -> Object:
        return self.wait_phase("Failed", seconds)

    def patch(self, spec: Object) -> None:
        self.cluster.kubectl(
            "patch", "finetunejob", self.name, "-n", self.namespace, "--type=merge", "-p", json.dumps({"spec": spec})
        )

    def delete(self) -> None:
        self.cluster.kubectl("delete", "finetunejob", self.name, "-n", self.namespace, "--wait=false")

    def logs(self, pod: str, *args: str) -> str:
        return self.cluster.kubectl("logs", pod, "-n", self.namespace, *args, check=False)

    def explain(self) -> str:
        """All that helps to see why a job is where it is."""
        cluster, namespace = self.cluster, self.namespace
        parts = [
            ("status", cluster.kubectl("get", "finetunejob", self.name, "-n", namespace, "-o", "yaml", check=False)),
            (
                "objects",
                cluster.kubectl("get", "jobs,pods,services,configmaps", "-n", namespace, "-o", "wide", check=False),
            ),
            ("events", cluster.kubectl("get", "events", "-n", namespace, "--sort-by=.lastTimestamp", check=False)),
        ]
        names = cluster.kubectl("get", "pods", "-n", namespace, "-o", "name", check=False).split()
        parts += [(name, cluster.kubectl("logs", name, "-n", namespace, "--tail=40", check=False)) for name in names]
        parts.append(("operator", cluster.operator_log()))
        return "\n".join(f"--- {title}\n{text.strip()}" for title, text in parts)


def is_prepare(pod: Object) -> bool:
    """Whether this is the pod of the prepare step."""
    return pod["metadata"]["labels"]["finetune-operator.io/component"] == "prepare"


def env(name: str) -> str | None:
    """A variable of the environment that is set and not empty."""
    return os.environ.get(name) or None
