"""Why an attempt ended: one cause from all that its pods say, in the design's order.

For a pod: our own exit code, then its conditions and reasons, then OOMKilled (sticky in Kubernetes: a container that
exits 44 after a child was killed still says so, hence only with 137, 1 or an unknown code). Among pods the first to
fail wins; `PeerLost` and `Interrupted` are consequences, and never win over a cause.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace

from finetune_api.exits import BY_CODE, EXITS, Reason, Retry
from finetune_api.report import Problem
from finetune_api.status import AttemptStatus, Failure
from finetune_api.text import clip
from finetune_api.times import seconds
from finetune_operator.job.attempt.attempt import Attempt, lost
from finetune_operator.job.attempt.hints import hint
from finetune_operator.job.attempt.termination_message import outcome
from finetune_operator.plan import names
from finetune_operator.plan.views.pod import PodView

DISRUPTIONS = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "EvictionByEvictionAPI": Reason.PREEMPTED,  # a drain
    "TerminationByKubelet": Reason.EVICTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
}
"""Reasons of the DisruptionTarget condition (Kubernetes, "Pod disruption conditions")."""

POD_REASONS = {
    "Evicted": Reason.EVICTED,
    "Preempting": Reason.PREEMPTED,
    "NodeLost": Reason.NODE_LOST,
    "Terminated": Reason.EVICTED,  # graceful node shutdown
    "NodeShutdown": Reason.EVICTED,
    "Shutdown": Reason.EVICTED,
    "DeadlineExceeded": Reason.DEADLINE_EXCEEDED,
    "UnexpectedAdmissionError": Reason.EVICTED,  # the kubelet refused it: try elsewhere
    "NodeAffinity": Reason.EVICTED,
    "OutOfcpu": Reason.EVICTED,
    "OutOfmemory": Reason.EVICTED,
    "OutOfpods": Reason.EVICTED,
    "OutOfephemeral-storage": Reason.EVICTED,
}
"""status.reason of failed pods, as the kubelet writes it."""

_OVER_LIMIT = re.compile(r"exceed(s|ed) (the|its) .*limit", re.IGNORECASE)
"""A limit of the pod's own was exceeded: the same would happen on any node ("The node was low on resource" is
another)."""

_CANNOT_START = ("StartError", "ContainerCannotRun")
UNASKED = "though nothing outside its pod had asked for it"
"""Ends the message of a stop that nobody is known to have asked for: without progress it counts against the budget."""
_AFTERMATH = (Reason.INTERRUPTED, Reason.POD_DELETED)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt ended."""

    reason: Reason
    message: str
    hint: str = ""
    field: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    place: str | None = None  # where an unexpected error was raised
    pod: str | None = None
    at: float | None = None  # seconds since the epoch

    @property
    def retry(self) -> Retry:
        return EXITS[self.reason].retry

    @property
    def counts(self) -> bool:
        """Whether another attempt is on the job's own account."""
        return self.retry is Retry.BUDGET or self.message.endswith(UNASKED)

    @property
    def weight(self) -> int:
        """0: a cause; 1: may be a cause or follow from one; 2: follows from another's end."""
        return 2 if self.reason is Reason.PEER_LOST else 1 if self.reason in _AFTERMATH else 0

    def failure(self) -> Failure:
        """For status.failure."""
        return Failure(
            reason=self.reason,
            message=clip(self.message, 1024),
            hint=clip(self.hint or EXITS[self.reason].hint, 512),
            field=self.field,
            rank=self.rank,
            exit_code=self.exit_code,
        )


def attempt_cause(
    attempt: Attempt,
    *,
    job_uid: str,
    processes: int,
    now: float,
    recorded: AttemptStatus | None = None,
    problem: Problem | None = None,
) -> Cause | None:
    """Why the attempt ends or has ended; None as long as nothing says that it does.

    `recorded` is what an earlier plan saw (its pod may be gone since), `problem` what rank 0 reported before it died.
    """
    if attempt.held:
        return None
    causes = [c for c in (pod_cause(p, job_uid, processes, now, problem) for p in attempt.pods) if c]
    seen = {p.name for p in attempt.pods}
    before = from_record(recorded)
    if before and before.pod and before.pod not in seen:
        causes.append(before)
    found = min(causes, key=_first) if causes else before
    if found is None or found.weight == 2:
        first_seen = before is not None and before.reason is Reason.PEER_LOST  # then all pods were still there
        found = before if first_seen else _vanished(attempt, now) or found
    if found is not None and found.reason is Reason.INTERRUPTED and not _asked(attempt, found, before):
        whose = next((_who(p) for p in attempt.pods if p.name == found.pod), "a worker")
        found = replace(found, message=f"{whose} stopped (exit code {found.exit_code}), {UNASKED}")
    return found


def _asked(attempt: Attempt, stop: Cause, before: Cause | None) -> bool:
    """Whether anything outside asked the pods of the attempt to stop: one was deleted, evicted or disrupted before
    this one stopped.

    A stop is told to all workers, so that they write one checkpoint: the pod that was asked may be another. What the
    Job controller deletes after the first failure comes later, and says nothing.
    """
    if attempt.job is None or attempt.job.deleting or stop.pod is None or stop.at is None:
        return True
    if before is not None and before.reason is Reason.INTERRUPTED and before.pod is not None:
        return not before.message.endswith(UNASKED)  # the pod that was asked may be gone by now
    return any(
        p.disruption is not None
        or p.reason in POD_REASONS
        or (p.told is not None and (p.told < stop.at or (p.name == stop.pod and p.told <= stop.at)))
        for p in attempt.pods
    )


def pod_cause(pod: PodView, job_uid: str, processes: int, now: float, problem: Problem | None = None) -> Cause | None:
    """Why this pod failed; None if it did not, or has not yet."""
    if pod.phase == "Succeeded":
        return None
    ended = pod.container if pod.container and pod.container.exit_code is not None else None
    code = ended.exit_code if ended else None
    if not pod.terminal and not code:
        if lost(pod, now):
            return Cause(
                Reason.NODE_LOST,
                f"{_who(pod)} is lost: its node {pod.node} is not heard of",
                pod=pod.name,
                at=pod.silent or pod.deletion,
            )
        return None
    reason, message = _judge(pod)
    told = outcome(pod, job_uid)
    said = (told.problem if told else None) or (problem if pod.index == 0 else None)
    if said is not None and said.reason is not reason:
        said = None
    at = (ended.finished_at if ended else None) or pod.deletion
    return Cause(
        reason=reason,
        message=clip(said.message if said else message, 1024),
        hint=said.hint if said and said.hint else hint(reason, pod.component),
        field=said.field if said else None,
        rank=said.rank if said and said.rank is not None else _rank(pod, processes),
        exit_code=code,
        place=said.place if said else None,
        pod=pod.name,
        at=at,
    )


def _judge(pod: PodView) -> tuple[Reason, str]:
    """Reason and message of a pod that failed, in the design's order."""
    ended = pod.container if pod.container and pod.container.exit_code is not None else None
    code = ended.exit_code if ended else None
    row = BY_CODE.get(code) if code is not None else None
    if row and row.reason not in (Reason.PEER_LOST, Reason.INTERRUPTED):
        return row.reason, f"{_who(pod)}: {row.cause}"
    if pod.reason == "Evicted" and _OVER_LIMIT.search(pod.message):
        return Reason.EPHEMERAL_STORAGE_EXCEEDED, f"{_who(pod)}: {pod.message}"
    if pod.disruption:
        reason = DISRUPTIONS.get(pod.disruption[0], Reason.EVICTED)
        return reason, f"{_who(pod)}: {pod.disruption[1] or pod.message or EXITS[reason].cause}"
    if pod.reason in POD_REASONS:
        reason = POD_REASONS[pod.reason]
        return reason, f"{_who(pod)}: {pod.message or EXITS[reason].cause}"
    if row:
        return row.reason, f"{_who(pod)}: {row.cause}"
    if ended and ended.reason == "OOMKilled":
        return Reason.OOM_KILLED, f"{_who(pod)}: {EXITS[Reason.OOM_KILLED].cause}"
    if ended and ended.reason in _CANNOT_START:
        return Reason.CONTAINER_CONFIG_ERROR, f"{_who(pod)} cannot be started: {ended.message or ended.reason}"
    if pod.deleting:
        return Reason.POD_DELETED, f"{_who(pod)} was deleted"
    return Reason.CRASHED, f"{_who(pod)} {_how(code)}{f': {pod.message}' if pod.message else ''}"


def from_record(entry: AttemptStatus | None) -> Cause | None:
    """The cause that status keeps of an attempt."""
    if entry is None or entry.reason is None:
        return None
    reason = Reason(entry.reason) if entry.reason in set(Reason) else Reason.CRASHED
    message = entry.message or EXITS[reason].cause
    return Cause(
        reason, message, exit_code=entry.exit_code, place=entry.place, pod=entry.pod, at=seconds(entry.end_time)
    )


def _vanished(attempt: Attempt, now: float) -> Cause | None:
    """A pod, or the whole Job, that is gone without having said why."""
    if attempt.job is None:
        return None if attempt.alive(now) else Cause(Reason.POD_DELETED, "the attempt's Job was deleted")
    if not attempt.failing:
        return None
    condition = attempt.job.failed_condition
    if condition and condition[0] == "DeadlineExceeded":
        return Cause(Reason.DEADLINE_EXCEEDED, f"Job {attempt.job.name}: {condition[1]}", at=attempt.job.finished)
    present = {p.index for p in attempt.pods}
    missing = [i for i in range(attempt.job.parallelism) if i not in present]
    if attempt.component == names.PREPARE:
        missing = [] if attempt.pods else [0]
    if missing:
        return Cause(Reason.POD_DELETED, f"{_name(attempt.component, missing[0])} is gone", at=attempt.job.finished)
    return (
        Cause(Reason.CRASHED, f"Job {attempt.job.name}: {condition[1]}", at=attempt.job.finished) if condition else None
    )


def _first(cause: Cause) -> tuple[int, float, int, str]:
    """Causes before consequences, then by time; in the same second what will not heal by trying again goes first."""
    late = cause.at if cause.at is not None else float("-inf")
    return cause.weight, late, 0 if cause.retry is Retry.NEVER else 1, cause.pod or ""


def _rank(pod: PodView, processes: int) -> int | None:
    if pod.component == names.PREPARE or pod.index is None:
        return None
    return pod.index * processes


def _who(pod: PodView) -> str:
    return _name(pod.component, pod.index)


def _name(component: str, index: int | None) -> str:
    return "the prepare pod" if component == names.PREPARE else f"worker {index}" if index is not None else "a worker"


def _how(code: int | None) -> str:
    if code is None:
        return "ended without an exit code"
    if 128 < code < 128 + signal.NSIG:
        try:
            return f"was killed by {signal.Signals(code - 128).name} (exit code {code})"
        except ValueError:
            pass
    return f"exited with the unknown code {code}"
