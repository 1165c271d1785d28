"""A pod, as a planner sees it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.times import seconds
from finetune_operator.plan import names
from finetune_operator.plan.views.container import ContainerView
from finetune_operator.plan.views.fields import WORDS, controller, whole

_GATES = "ReadinessGatesNotReady"
"""The kubelet's reason where containers are ready and the pod is not."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of ours."""

    name: str
    uid: str
    component: str  # names.PREPARE or names.WORKER
    attempt: int  # of the prepare step or of the workers: each counts its own
    created: float
    owner_uid: str | None = None  # UID of the Job that controls it
    owner_job: str = ""  # and its name, which tells component and attempt
    index: int | None = None
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    disruption: tuple[str, str] | None = None  # reason and message of a true DisruptionTarget condition
    deletion: float | None = None  # when its grace period is over, if it is being deleted
    told: float | None = None  # when its deletion was asked for
    silent: float | None = None  # since when its node is not heard of
    node: str = ""
    scheduled: float | None = None
    unschedulable: str | None = None  # the scheduler's words
    container: ContainerView | None = None
    image_id: str = ""  # the trainer's image as the node knows it

    @property
    def stem(self) -> str:
        """What the names of all children of its FineTuneJob begin with."""
        return self.owner_job.rpartition("-")[0]

    @property
    def deleting(self) -> bool:
        return self.deletion is not None

    @property
    def terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        """Whether the trainer's container runs now."""
        return not self.terminal and self.container is not None and self.container.running

    @property
    def begun(self) -> bool:
        """Whether the trainer's container was started; it may have ended, of which the pod's phase learns a second
        later."""
        container = self.container
        return self.terminal or (container is not None and (container.running or container.exit_code is not None))

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PodView | None:
        """A core/v1 Pod; None unless a Job controls it whose name we may have given."""
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        owner = controller(meta)
        known = names.parse(owner.get("name") or "") if owner.get("kind") == "Job" else None
        if known is None:
            return None
        deletion = seconds(meta.get("deletionTimestamp"))
        grace = meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        placed, disrupted = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
        containers = [c for c in status.get("containerStatuses") or () if c.get("name") == names.CONTAINER]
        index = (meta.get("annotations") or {}).get(names.INDEX) or (meta.get("labels") or {}).get(names.INDEX)
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            component=known[1],
            attempt=known[2],
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            owner_uid=owner.get("uid"),
            owner_job=owner["name"],
            index=whole(index),
            phase=status.get("phase") or "Pending",
            reason=status.get("reason") or "",
            message=(status.get("message") or "")[:WORDS],
            disruption=(
                (disrupted.get("reason") or "", (disrupted.get("message") or "")[:WORDS])
                if disrupted.get("status") == "True"
                else None
            ),
            deletion=deletion,
            told=None if deletion is None else deletion - (grace if isinstance(grace, int) else 30),
            silent=_silent(conditions),
            node=spec.get("nodeName") or "",
            scheduled=seconds(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None,
            unschedulable=(
                (placed.get("message") or placed.get("reason") or "")[:WORDS]
                if placed.get("status") == "False"
                else None
            ),
            container=ContainerView.from_status(containers[0]) if containers else None,
            image_id=sys.intern(str(containers[0].get("imageID") or "")[:WORDS]) if containers else "",
        )


def _silent(conditions: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Since when the node controller, and not the kubelet, calls the pod not ready: a kubelet says so of the
    containers too."""
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    marked = ready.get("status") == "False" and containers.get("status") == "True"
    return seconds(ready.get("lastTransitionTime")) if marked and ready.get("reason") != _GATES else None
