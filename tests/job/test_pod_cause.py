"""Why one pod ended: our own exit code first, then what Kubernetes says of it, then the rest."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import START
from finetune_api.exits import BY_CODE, Reason
from finetune_operator.job.attempt.causes import Cause, pod_cause
from finetune_operator.plan import names
from finetune_operator.plan.views.container import ContainerView
from finetune_operator.plan.views.pod import PodView

UID = "u"


def pod(
    code: int | None = None,
    *,
    why: str = "Error",
    index: int = 0,
    at: float = START,
    phase: str = "Failed",
    reason: str = "",
    message: str = "",
    disruption: tuple[str, str] | None = None,
    deletion: float | None = None,
) -> PodView:
    container = (
        ContainerView(exit_code=code, reason=why, started_at=START - 9, finished_at=at) if code is not None else None
    )
    return PodView(
        f"p-{index}",
        f"uid-{index}",
        names.WORKER,
        1,
        START - 10,
        index=index,
        phase=phase,
        reason=reason,
        message=message,
        disruption=disruption,
        deletion=deletion,
        container=container,
        node="node-1",
    )


def cause_of(found: PodView, now: float = START) -> Cause:
    cause = pod_cause(found, UID, 1, now)
    assert cause is not None
    return cause


NODE = (
    "The node was low on resource: ephemeral-storage. Container trainer was using 5Gi, request is 0, has larger"
    " consumption of ephemeral-storage."
)
EMPTY_DIR = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi".'
POD_TOTAL = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
CONTAINER_LIMIT = 'Container trainer exceeded its local ephemeral storage limit "1Gi".'

KUBELET = ("TerminationByKubelet", "x")

TABLE: dict[str, tuple[dict[str, Any], Reason]] = {
    # our own code goes before anything that Kubernetes says
    "our code though OOMKilled is said too": ({"code": 44, "why": "OOMKilled"}, Reason.INTERNAL_ERROR),
    "our code though disrupted": ({"code": 21, "disruption": ("TerminationByKubelet", "")}, Reason.INVALID_DATA),
    "our code though deleted": ({"code": 42, "deletion": START + 9}, Reason.STORAGE_UNAVAILABLE),
    # told to stop: by whom?
    "told to stop by nobody we know": ({"code": 40}, Reason.INTERRUPTED),
    "told to stop by a preemption": ({"code": 40, "disruption": ("PreemptionByScheduler", "")}, Reason.PREEMPTED),
    "told to stop by a drain": ({"code": 40, "disruption": ("EvictionByEvictionAPI", "")}, Reason.PREEMPTED),
    "told to stop by the kubelet": ({"code": 40, "disruption": ("TerminationByKubelet", "")}, Reason.EVICTED),
    "node tainted": ({"code": 137, "disruption": ("DeletionByTaintManager", "")}, Reason.NODE_LOST),
    "node gone": ({"disruption": ("DeletionByPodGC", "")}, Reason.NODE_LOST),
    "a disruption of the future": ({"code": 137, "disruption": ("DeletionByMartians", "")}, Reason.EVICTED),
    "peer lost by a preemption of its own": (
        {"code": 41, "disruption": ("PreemptionByScheduler", "")},
        Reason.PREEMPTED,
    ),
    # the kubelet's reasons
    "node pressure": ({"code": 137, "reason": "Evicted", "message": NODE}, Reason.EVICTED),
    "node pressure with condition": (
        {"reason": "Evicted", "message": NODE, "disruption": ("TerminationByKubelet", "")},
        Reason.EVICTED,
    ),
    "emptyDir over its limit": (
        {"code": 137, "reason": "Evicted", "message": EMPTY_DIR, "disruption": KUBELET},
        Reason.EPHEMERAL_STORAGE_EXCEEDED,
    ),
    "emptyDir over its limit, checkpoint written": (
        {"code": 40, "reason": "Evicted", "message": EMPTY_DIR},
        Reason.EPHEMERAL_STORAGE_EXCEEDED,
    ),
    "pod over its limit": ({"reason": "Evicted", "message": POD_TOTAL}, Reason.EPHEMERAL_STORAGE_EXCEEDED),
    "container over its limit": ({"reason": "Evicted", "message": CONTAINER_LIMIT}, Reason.EPHEMERAL_STORAGE_EXCEEDED),
    "node shut down": (
        {"code": 143, "reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."},
        Reason.EVICTED,
    ),
    "kubelet refused it": ({"reason": "UnexpectedAdmissionError"}, Reason.EVICTED),
    "no room after all": ({"reason": "OutOfcpu"}, Reason.EVICTED),
    "pod deadline": ({"code": 137, "reason": "DeadlineExceeded"}, Reason.DEADLINE_EXCEEDED),
    # out of memory: only with codes that are not ours
    "OOM by 137": ({"code": 137, "why": "OOMKilled"}, Reason.OOM_KILLED),
    "OOM by 1": ({"code": 1, "why": "OOMKilled"}, Reason.OOM_KILLED),
    "OOM by an unknown code": ({"code": 99, "why": "OOMKilled"}, Reason.OOM_KILLED),
    "OOM while being deleted": ({"code": 137, "why": "OOMKilled", "deletion": START}, Reason.OOM_KILLED),
    # the rest
    "deleted with no grace": ({"code": 137, "deletion": START}, Reason.POD_DELETED),
    "killed": ({"code": 137}, Reason.CRASHED),
    "segmentation fault": ({"code": 139}, Reason.CRASHED),
    "an exit code of the shell's": ({"code": 127}, Reason.CRASHED),
    "failed without a container": ({"message": "something new"}, Reason.CRASHED),
    "no such command in the image": ({"code": 128, "why": "StartError"}, Reason.CONTAINER_CONFIG_ERROR),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_reason_of_one_pod(case: str) -> None:
    fields, reason = TABLE[case]
    assert cause_of(pod(**fields)).reason is reason


@pytest.mark.parametrize("code", BY_CODE)
def test_every_exit_code_of_ours_is_read(code: int) -> None:
    assert cause_of(pod(code)).reason is BY_CODE[code].reason


@pytest.mark.parametrize("code", [0, None])
def test_a_pod_that_has_not_failed_has_no_cause(code: int | None) -> None:
    assert pod_cause(pod(code, phase="Succeeded" if code == 0 else "Running"), UID, 1, START) is None
    assert pod_cause(pod(None, phase="Running", deletion=START + 100), UID, 1, START) is None


def test_a_pod_long_past_its_grace_period_was_on_a_lost_node() -> None:
    silent = pod(None, phase="Running", deletion=START)
    assert pod_cause(silent, UID, 1, START + 59) is None
    assert cause_of(silent, START + 60).reason is Reason.NODE_LOST


def test_a_signal_is_named() -> None:
    assert "SIGSEGV" in cause_of(pod(139)).message
    assert "unknown code 99" in cause_of(pod(99)).message


def test_a_signal_without_a_name_is_an_unknown_code() -> None:
    assert "the unknown code 160" in cause_of(pod(128 + 32)).message
