"""A fake Job controller, scheduler and kubelet: each tick takes every Job and pod one step further.

Enough for Indexed Jobs with backoffLimit 0: pods are made, scheduled, run, and end as `end` says; the first failure
fails the Job and its other pods are killed. What ran is noted, so that a test can tell a job made twice from one made
once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from fakecluster.objects import Object, Objects

COMPONENT = "finetune-operator.io/component"
ATTEMPT = "finetune-operator.io/attempt"
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Ending:
    """How a container ends."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""


def success(pod: Object) -> Ending:
    """The end of a pod that did its work, with the launcher's last word."""
    labels = pod["metadata"]["labels"]
    said = {
        "version": 1,
        "jobId": labels["finetune-operator.io/job-uid"],
        "attempt": max(1, int(labels[ATTEMPT])),
        "exitCode": 0,
    }
    if labels[COMPONENT] == "prepare":
        said |= {"resolved": {"totalSteps": 10}, "data": {"trainRows": 100}}
    else:
        said |= {"step": 10, "output": {"uri": "s3://models/out"}}
    return Ending(0, "Completed", json.dumps(said))


@dataclass
class Node:
    """`end` is asked for each running pod: None lets it run on."""

    objects: Objects
    end: Callable[[Object], Ending | None] = success
    schedulable: Callable[[Object], bool] = lambda pod: True
    started: list[str] = field(default_factory=list)  # names of pods that have run

    def tick(self) -> bool:
        """One step. Returns whether anything changed."""
        before = self.objects.version
        for job in self.objects.list("jobs"):
            self._job(job)
        for pod in self.objects.list("pods"):
            self._pod(pod)
        return self.objects.version != before

    def _job(self, job: Object) -> None:
        meta, spec, status = job["metadata"], job["spec"], job.get("status") or {}
        ref = ("jobs", meta["namespace"], meta["name"])
        pods = self.objects.owned("pods", meta["uid"])
        if any(c["type"] in ("Complete", "Failed") for c in status.get("conditions") or ()):
            return
        if spec.get("suspend"):
            for pod in pods:
                self.objects.delete(("pods", meta["namespace"], pod["metadata"]["name"]))
            return
        phases = [(p.get("status") or {}).get("phase") for p in pods]
        count = spec.get("completions", 1)
        if "Failed" in phases:
            for pod, phase in zip(pods, phases, strict=True):
                if phase not in ("Failed", "Succeeded"):
                    self._ended(pod, Ending(137, "Error"))
            self._finish(ref, "Failed", "BackoffLimitExceeded", failed=phases.count("Failed"))
        elif phases.count("Succeeded") == count:
            self._finish(ref, "Complete", "CompletionsReached", succeeded=count)
        else:
            if len(pods) < count and status.get(
                "startTime"
            ):  # a pod was deleted: it counts as failed, and the others are killed
                for pod, phase in zip(pods, phases, strict=True):
                    if phase not in ("Failed", "Succeeded"):
                        self._ended(pod, Ending(137, "Error"))
                self._finish(ref, "Failed", "BackoffLimitExceeded", failed=count)
                return
            for index in range(len(pods), count):
                self._make(job, index)
            self.objects.set_status(
                ref,
                startTime=status.get("startTime") or self.objects.clock(),
                active=count,
                ready=phases.count("Running"),
            )

    def _finish(self, ref: tuple[str, str, str], kind: str, reason: str, **counts: int) -> None:
        condition = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": reason,
            "lastTransitionTime": self.objects.clock(),
        }
        ended = {"completionTime": self.objects.clock()} if kind == "Complete" else {}
        self.objects.set_status(ref, conditions=[condition], active=0, ready=0, **ended, **counts)

    def _make(self, job: Object, index: int) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        notes = (template["metadata"].get("annotations") or {}) | {INDEX: str(index)}
        body = {
            "metadata": {
                "name": f"{meta['name']}-{index}",
                "labels": template["metadata"]["labels"],
                "annotations": notes,
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self.objects.create("pods", meta["namespace"], body)

    def _pod(self, pod: Object) -> None:
        meta, phase = pod["metadata"], pod["status"].get("phase")
        ref = ("pods", meta["namespace"], meta["name"])
        if ref not in self.objects.all:
            return
        if phase == "Pending":
            if not self.schedulable(pod):
                words = {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient cpu.",
                }
                self.objects.set_status(ref, conditions=[words])
                return
            self.started.append(meta["name"])
            scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.objects.clock()}
            state = {"name": "trainer", "state": {"running": {"startedAt": self.objects.clock()}}}
            self.objects.set_status(ref, phase="Running", conditions=[scheduled], containerStatuses=[state])
        elif phase == "Running":
            ending = self.end(pod)
            if "deletionTimestamp" in meta:
                self.objects.remove(ref)
            elif ending:
                self._ended(pod, ending)

    def _ended(self, pod: Object, ending: Ending) -> None:
        meta = pod["metadata"]
        terminated = {
            "exitCode": ending.exit_code,
            "reason": ending.reason or ("Completed" if ending.exit_code == 0 else "Error"),
            "message": ending.message,
            "startedAt": self.objects.clock(),
            "finishedAt": self.objects.clock(),
        }
        state = {"name": "trainer", "state": {"terminated": terminated}}
        phase = "Failed" if ending.exit_code else "Succeeded"
        self.objects.set_status(("pods", meta["namespace"], meta["name"]), phase=phase, containerStatuses=[state])
