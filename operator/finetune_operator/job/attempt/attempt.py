"""An attempt: one Job of ours with the pods that belong to its present run, and whether it is over.

Two attempts of a job never overlap: the next one is made only when every pod of the last is terminal, gone, or lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.job.observed import Observed
from finetune_operator.plan import names
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView

KEEP = 2
"""The Jobs of so many attempts stay, so that `kubectl logs` works after a failure."""
SKEW_SECONDS = 5.0
"""Clocks of the API server and the Job controller may differ by so much."""
TAINTED = "DeletionByTaintManager"
"""Reason of the DisruptionTarget condition of a pod that outstayed its toleration of a node's taint."""
LOST_SECONDS = 60.0
"""A pod still there so long after its grace period is on a node that nobody hears of: it counts as gone. Should it
live on, the checkpoints' generations keep it from writing."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt `number` of the prepare step or of the workers; `job` is None when its Job is gone."""

    component: str
    number: int
    job: JobView | None
    pods: tuple[PodView, ...]

    @property
    def failing(self) -> bool:
        """Whether Kubernetes has given the Job up, its pods being gone or not."""
        return self.job is not None and (self.job.failing or self.job.failed_condition is not None)

    @property
    def doomed(self) -> bool:
        """Whether the Job will fail by itself: with a back-off limit of 0 one failed pod is enough."""
        codes = (p.container.exit_code for p in self.pods if p.container)
        return self.failing or any(p.phase == "Failed" for p in self.pods) or any(codes)

    @property
    def done(self) -> bool:
        """Whether nothing of it is left to stop: its Job has ended, will by itself, or is about to hear that all
        pods have."""
        if self.job is None or self.job.terminal or self.doomed:
            return True
        return len({p.index for p in self.pods if p.terminal}) >= self.job.parallelism

    @property
    def held(self) -> bool:
        """Whether a queue manager holds the Job back."""
        return self.job is not None and self.job.suspended

    def over(self, now: float) -> bool:
        """Whether it has ended for good: its Job is gone or given up, or a pod is lost; and no pod is at work."""
        return (self.job is None or self.failing or bool(self.lost(now))) and not self.alive(now)

    def stranded(self, now: float) -> bool:
        """Whether its Job waits, maybe for ever, for a pod that is lost: deleting it ends the pods that are left."""
        return self.job is not None and not (self.job.terminal or self.job.deleting) and bool(self.lost(now))

    def lost(self, now: float) -> tuple[PodView, ...]:
        """Pods on nodes that are gone."""
        return tuple(p for p in self.pods if not p.terminal and lost(p, now))

    def alive(self, now: float) -> tuple[PodView, ...]:
        """Pods that may still do something."""
        return tuple(p for p in self.pods if not p.terminal and not lost(p, now))

    def until_lost(self, now: float) -> float | None:
        """Seconds until the first pod that is leaving and does not go counts as lost."""
        waits = [p.deletion + LOST_SECONDS - now for p in self.pods if p.deletion is not None and not p.terminal]
        return min((w for w in waits if w > 0), default=None)


def lost(pod: PodView, now: float) -> bool:
    """Whether a pod that is being deleted will not be heard of again.

    The taint of its node is the evidence: Kubernetes deletes the pod for it, and where the node is silent, or the
    container had not started, there is nothing to wait for. Else it counts as lost when it is long past its grace
    period.
    """
    if pod.deletion is None:
        return False
    tainted = pod.disruption is not None and pod.disruption[0] == TAINTED
    return (tainted and (pod.silent is not None or not pod.begun)) or now >= pod.deletion + LOST_SECONDS


def attempts(observed: Observed, component: str) -> tuple[Attempt, ...]:
    """All attempts of a component of which a Job or pod is there, oldest first; Jobs of other owners are left out."""
    jobs = _made(observed, component)
    pods = [p for p in observed.pods if p.component == component]
    numbers = sorted({*jobs, *(p.attempt for p in pods)})
    return tuple(
        Attempt(component, n, jobs.get(n), _present(jobs.get(n), [p for p in pods if p.attempt == n])) for n in numbers
    )


def _made(observed: Observed, component: str) -> dict[int, JobView]:
    """The Jobs by number.

    Attempts are made one after the other: a Job that is not next after one known is not of our making.
    """
    newest = observed.job.status.attempt if component == names.WORKER else None
    made: dict[int, JobView] = {}
    for job in sorted(observed.jobs, key=lambda j: j.attempt):
        if job.component != component or job.owner_uid != observed.job.uid:
            continue
        if newest is None or job.attempt <= newest + 1:
            made[job.attempt] = job
            newest = None if newest is None else max(newest, job.attempt)
    return made


def find(attempts: tuple[Attempt, ...], component: str, number: int) -> Attempt:
    """The try of that number; an empty one if nothing of it is there."""
    return next((t for t in attempts if t.number == number), Attempt(component, number, None, ()))


def _present(job: JobView | None, pods: list[PodView]) -> tuple[PodView, ...]:
    """The Job's own pods by index. A queue manager that stops a Job and admits it again replaces its pods: those of
    before the last admission have left by its order, which says nothing of the run."""
    if job is not None:
        pods = [p for p in pods if p.owner_uid == job.uid]
        if job.queue_name and job.started is not None:
            pods = [p for p in pods if not p.terminal or p.created >= job.started - SKEW_SECONDS]
    return tuple(sorted(pods, key=lambda p: (p.index if p.index is not None else -1, p.created, p.name)))


def next_number(attempts: tuple[Attempt, ...], known: int) -> int:
    """One more than any try that is or was."""
    return max((known, *(t.number for t in attempts)), default=0) + 1
