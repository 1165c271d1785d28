"""The Job controller and the kubelet, played by hand: objects as the API server sends them, and nothing happens by
itself.

A test says what happens: `control` is one round of the Job controller, `start`, `exit`, `terminate`, `disrupt` and
`sweep` are the kubelet's.
"""

from __future__ import annotations

import copy
import uuid
from typing import Any

from finetune_api.report import Outcome, Problem
from finetune_api.times import rfc3339, seconds
from finetune_operator.plan import names


class Controllers:
    """The children of one FineTuneJob of this `uid`, and the time."""

    uid: str

    def __init__(self, now: float) -> None:
        self.now = now
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.image_ids: dict[str, str] = {}  # imageID that the node knows an image by

    # ------------------------------------------------------------ Job controller

    def jobs(self, component: str | None = None) -> list[dict[str, Any]]:
        found = [o for (kind, _), o in self.objects.items() if kind == "Job"]
        return [j for j in found if component is None or j["metadata"]["labels"][names.COMPONENT] == component]

    def pods_of(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        return [p for p in self.pods.values() if p["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]]

    def control(self) -> None:
        """One round of the Job controller: make pods, count them, fail and complete Jobs."""
        for job in self.jobs():
            status = job["status"]
            if condition(job, "Complete") or condition(job, "Failed"):
                continue
            pods = self.pods_of(job)
            if job["spec"].get("suspend"):
                for pod in pods:
                    self.terminate(pod)
                continue
            status.setdefault("startTime", rfc3339(self.now))
            failed = any(p["status"].get("phase") == "Failed" for p in pods) or status.get("failed")
            if failed:
                status["failed"] = status.get("failed", 0) or 1
                _set(job, "FailureTarget", "BackoffLimitExceeded", self.now)
                alive = [p for p in pods if p["status"].get("phase") not in ("Failed", "Succeeded")]
                for pod in alive:
                    self.terminate(pod)
                if not alive:
                    _set(job, "Failed", "BackoffLimitExceeded", self.now)
                continue
            done = [p for p in pods if p["status"].get("phase") == "Succeeded"]
            if len(done) == job["spec"]["completions"]:
                _set(job, "Complete", "CompletionsReached", self.now)
                status["completionTime"] = rfc3339(self.now)
                continue
            have = {p["metadata"]["annotations"][names.INDEX] for p in pods}
            for index in map(str, range(job["spec"]["parallelism"])):
                if index not in have:
                    self._pod(job, index)

    def _pod(self, job: dict[str, Any], index: str) -> None:
        template = job["spec"]["template"]
        name = f"{job['metadata']['name']}-{index}-{uuid.uuid4().hex[:5]}"
        meta = {
            "name": name,
            "namespace": "team",
            "uid": str(uuid.uuid4()),
            "creationTimestamp": rfc3339(self.now),
            "labels": {**template["metadata"]["labels"], names.INDEX: index},
            "annotations": {names.INDEX: index},
            "ownerReferences": [
                {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
            ],
        }
        self.pods[name] = {"metadata": meta, "spec": copy.deepcopy(template["spec"]), "status": {"phase": "Pending"}}

    # ------------------------------------------------------------ kubelet

    def pod(self, index: int = 0, component: str = names.WORKER) -> dict[str, Any]:
        """The newest pod of that index."""
        found = [p for p in self.pods.values() if p["metadata"]["labels"][names.COMPONENT] == component]
        found = [p for p in found if p["metadata"]["annotations"][names.INDEX] == str(index)]
        return max(
            found, key=lambda p: (int(p["metadata"]["labels"][names.ATTEMPT]), p["metadata"]["creationTimestamp"])
        )

    def start(self, *pods: dict[str, Any]) -> None:
        for pod in pods:
            pod["spec"]["nodeName"] = "node-1"
            pod["status"] = {
                "phase": "Running",
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(self.now)}],
                "containerStatuses": [
                    {
                        "name": names.CONTAINER,
                        "imageID": self.image_ids.get(pod["spec"]["containers"][0]["image"], ""),
                        "state": {"running": {"startedAt": rfc3339(self.now)}},
                    }
                ],
            }

    def exit(
        self,
        pod: dict[str, Any],
        code: int,
        *,
        reason: str = "",
        problem: Problem | None = None,
        outcome: bool = True,
        **said: Any,
    ) -> None:
        """The container ends. A pod that is being deleted is gone as soon as `sweep` is called."""
        attempt = int(pod["metadata"]["labels"][names.ATTEMPT])
        words = (
            Outcome(job_id=self.uid, attempt=attempt, exit_code=code, problem=problem, **said).to_message()
            if outcome
            else ""
        )
        started = seconds(pod["metadata"]["creationTimestamp"])
        state = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": words,
            "startedAt": rfc3339(started or self.now),
            "finishedAt": rfc3339(self.now),
        }
        pod["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
        image_id = self.image_ids.get(pod["spec"]["containers"][0]["image"], "")
        pod["status"]["containerStatuses"] = [
            {"name": names.CONTAINER, "imageID": image_id, "state": {"terminated": state}}
        ]

    def terminate(self, pod: dict[str, Any], grace: float | None = None) -> None:
        """DELETE of a pod: it gets its grace period; terminal ones go at once."""
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        pod["metadata"].setdefault("deletionTimestamp", rfc3339(self.now + grace))

    def disrupt(self, pod: dict[str, Any], reason: str, message: str = "") -> None:
        pod["status"].setdefault("conditions", []).append(
            {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
        )

    def silence(self, *pods: dict[str, Any]) -> None:
        """The node controller: the node of these pods is not heard of."""
        for pod in pods:
            for type_, status in (("ContainersReady", "True"), ("Ready", "False")):
                pod["status"]["conditions"].append(
                    {"type": type_, "status": status, "lastTransitionTime": rfc3339(self.now)}
                )

    def give_up(self, *pods: dict[str, Any]) -> None:
        """The taint manager: these pods have outstayed their toleration."""
        for pod in pods:
            self.disrupt(pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
            self.terminate(pod)

    def sweep(self, code: int = 40) -> None:
        """Pods that are being deleted end with this code, are counted, and go."""
        for name, pod in list(self.pods.items()):
            if "deletionTimestamp" in pod["metadata"]:
                if pod["status"].get("phase") not in ("Failed", "Succeeded"):
                    self.exit(pod, code)
                    owner = next(
                        (
                            j
                            for j in self.jobs()
                            if j["metadata"]["uid"] == pod["metadata"]["ownerReferences"][0]["uid"]
                        ),
                        None,
                    )
                    if owner is not None and code and not owner["spec"].get("suspend"):
                        owner["status"]["failed"] = owner["status"].get("failed", 0) + 1
                del self.pods[name]


def _set(job: dict[str, Any], type_: str, reason: str, now: float) -> None:
    if not condition(job, type_):
        found = {
            "type": type_,
            "status": "True",
            "reason": reason,
            "message": f"Job has {reason}",
            "lastTransitionTime": rfc3339(now),
        }
        job["status"].setdefault("conditions", []).append(found)


def condition(job: dict[str, Any], type_: str) -> bool:
    return any(c["type"] == type_ and c["status"] == "True" for c in job["status"].get("conditions", ()))
