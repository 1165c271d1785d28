"""Why pods wait, in the words of whoever makes them wait: scheduler, kubelet, quota, admission.

These may heal (a node joins, a Secret is made), so the job waits on with a reason and a hint and is not failed.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from finetune_api.exits import EXITS, Reason
from finetune_api.text import join
from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.attempt.hints import hint
from finetune_operator.job.observed import Observed
from finetune_operator.plan import names
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.pod import PodView

PODS_SECONDS = 10.0
"""A Job that lacks pods after so long has its Events read."""
MOUNT_SECONDS = 20.0
"""A pod on a node whose container is not made after so long has its Events read."""
AGAIN_SECONDS, SELDOM_SECONDS = 15.0, 300.0
"""Events are read again after half the time waited so far, within these: who waits for an hour hears nothing new
each minute."""

_IMAGE = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "ImageInspectError",
)
_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_SECRET = re.compile(
    r"secret \"[^\"]*\" not found|couldn't find key \S+ in Secret|references non-existent secret key", re.IGNORECASE
)
_MOUNT = ("FailedMount", "FailedAttachVolume")
_POD_NAME = re.compile(r"pods? \"[^\"]*\"( is)? ?")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why the pods of an attempt are not all running."""

    reason: Reason
    words: str
    component: str = names.WORKER

    @property
    def message(self) -> str:
        return join(self.words, hint(self.reason, self.component))


def why(observed: Observed, attempt: Attempt) -> Waiting | None:
    """The first known obstacle, by index of the pods; None if nothing but time is missing."""
    found = next((w for w in map(_of_pod, attempt.pods) if w), None)
    if found:
        return dataclasses.replace(_steady(found, observed), component=attempt.component)
    stuck = _stuck(attempt)
    if stuck:
        found = next((w for w in (_of_mount(stuck, e) for e in _latest(observed, stuck.name)) if w), None)
    if found is None and attempt.job is not None and _lacks_pods(attempt):
        found = next((w for w in map(_of_create, _latest(observed, attempt.job.name)) if w), None)
    return dataclasses.replace(found, component=attempt.component) if found else None


def to_read(observed: Observed, attempt: Attempt) -> tuple[tuple[str, ...], float | None]:
    """Names of the objects whose Events would tell more, and seconds until to ask again."""
    if attempt.job is None or attempt.held or attempt.failing or attempt.job.terminal:
        return (), None
    stuck = _stuck(attempt)
    if _lacks_pods(attempt):
        name, since, patience = attempt.job.name, attempt.job.started or attempt.job.created, PODS_SECONDS
    elif stuck is not None and stuck.scheduled is not None:
        name, since, patience = stuck.name, stuck.scheduled, MOUNT_SECONDS
    else:
        return (), None
    age = observed.now - since
    again = min(SELDOM_SECONDS, max(AGAIN_SECONDS, age / 2))
    return ((name,), again) if age >= patience else ((), patience - age)


def _of_pod(pod: PodView) -> Waiting | None:
    if pod.terminal or pod.deleting:
        return None
    if pod.unschedulable:
        return Waiting(Reason.UNSCHEDULABLE, f"{pod.name}: {pod.unschedulable}")
    container = pod.container
    if container is None or not container.waiting_reason:
        return None
    words = f"{pod.name}: {container.waiting_message or container.waiting_reason}"
    if container.waiting_reason in _IMAGE:
        return Waiting(Reason.IMAGE_PULL_FAILED, words)
    if container.waiting_reason in _CONTAINER:
        reason = Reason.SECRET_NOT_FOUND if _SECRET.search(words) else Reason.CONTAINER_CONFIG_ERROR
        return Waiting(reason, words)
    return None


def _steady(found: Waiting, observed: Observed) -> Waiting:
    """The words kept from before while the image is waited for: the kubelet says the same in two ways, by turns."""
    status = observed.job.status
    if found.reason is Reason.IMAGE_PULL_FAILED and "Back-off" in found.words and status.reason == found.reason:
        before = (status.message or "").removesuffix(EXITS[found.reason].hint).rstrip(". ")
        return Waiting(found.reason, before or found.words)
    return found


def _of_mount(pod: PodView, event: EventView) -> Waiting | None:
    if event.reason not in _MOUNT:
        return None
    secret = re.search(r"secret \"[^\"]*\" not found|references non-existent secret key", event.message)
    reason = Reason.SECRET_NOT_FOUND if secret else Reason.CONTAINER_CONFIG_ERROR
    return Waiting(reason, f"{pod.name}: {event.message}")


def _of_create(event: EventView) -> Waiting | None:
    if event.reason != "FailedCreate":
        return None
    return refused(event.message)


def refused(message: str) -> Waiting:
    """An object that the API server does not let in; the random part of a pod's name is left out, it changes each
    time."""
    words = _POD_NAME.sub("", message)
    reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in message else Reason.ADMISSION_DENIED
    return Waiting(reason, words)


def _latest(observed: Observed, name: str) -> list[EventView]:
    return sorted(observed.events.get(name, ()), key=lambda e: -e.time)


def _lacks_pods(attempt: Attempt) -> bool:
    return (
        attempt.job is not None
        and not attempt.job.terminal
        and not attempt.job.failing
        and max(len(attempt.pods), attempt.job.active) < _wanted(attempt)
    )


def _stuck(attempt: Attempt) -> PodView | None:
    """A pod that has its node, but no container after it should have."""
    waiting = (p for p in attempt.pods if p.scheduled is not None and not p.begun and not p.deleting)
    return next(
        (
            p
            for p in waiting
            if p.container is None or p.container.waiting_reason in ("ContainerCreating", "PodInitializing", "")
        ),
        None,
    )


def _wanted(attempt: Attempt) -> int:
    return 1 if attempt.component == names.PREPARE else attempt.job.parallelism if attempt.job else 0
