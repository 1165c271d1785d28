"""What the attempts of a job say, gathered once before anything is decided: their pods, reports and last words.

A frozen value, made from the observation alone: policies read it, and none of them looks at pods a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from finetune_api.exits import Reason, Retry
from finetune_api.job import Spec
from finetune_api.report import Outcome, Report
from finetune_api.status import AttemptStatus, ConditionType, Status
from finetune_operator.job.attempt import causes, history, queue_manager, seen
from finetune_operator.job.attempt.attempt import Attempt, attempts, find
from finetune_operator.job.attempt.causes import Cause
from finetune_operator.job.attempt.queue_manager import Admissions
from finetune_operator.job.attempt.termination_message import last_words
from finetune_operator.job.children import run_config
from finetune_operator.job.observed import Observed
from finetune_operator.plan import conditions, names


@dataclass(frozen=True, slots=True)
class ComponentEvidence:
    """The attempts of one component, and all that is known of the last one."""

    attempts: tuple[Attempt, ...]  # those of which a Job or pod is there, oldest first
    attempt: Attempt  # the last one; number 0 before the first
    report: Report | None = None  # the latest, if it is this attempt's
    outcome: Outcome | None = None  # from its pods' termination messages
    cause: Cause | None = None  # why it ends or has ended
    certain: bool = False  # the cause may be written down, though pods may still be leaving
    over: bool = False  # it has ended for good, and the cause is known
    place_before: str | None = None  # of the prepare step: where an unexpected error ended the attempt before

    @property
    def succeeded(self) -> bool:
        job = self.attempt.job
        return job is not None and job.complete


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is seen and said of a job's attempts."""

    prepare: ComponentEvidence
    workers: ComponentEvidence
    begun: bool  # workers were made
    prepared: bool  # the prepare step has passed: the workers are next, or at work
    admissions: Admissions  # what a queue manager did with the workers
    entries: Mapping[int, AttemptStatus]  # of status.attempts by number, brought up to date
    restarts: int
    look_up: tuple[str, ...]  # names of Jobs without whose pods nothing can be judged

    @property
    def active(self) -> ComponentEvidence:
        """The component whose turn it is."""
        return self.workers if self.prepared else self.prepare

    @property
    def standing(self) -> tuple[Attempt, ...]:
        """The attempts that a suspend stops, in that order."""
        return (*self.workers.attempts, *self.prepare.attempts) if self.prepared else self.prepare.attempts

    @property
    def entry(self) -> AttemptStatus:
        """The entry of the workers' last attempt."""
        return self.entries[self.workers.attempt.number]


def gather(observed: Observed, spec: Spec, status: Status) -> Evidence:
    """The evidence of one observation."""
    validated = conditions.holds(status.conditions, ConditionType.VALIDATED)
    made = attempts(observed, names.WORKER)
    begun = any(a.job for a in made) or bool(status.attempts)
    prepare = _prepare(observed)
    prepared = validated or begun or _passed(prepare.attempt)

    newest = made[-1] if made and prepared else None
    events = observed.events.get(newest.job.name, ()) if newest and newest.job else ()
    admissions = queue_manager.admissions(status.attempts, newest, events, observed.now)
    known = {a.number: a for a in reversed(admissions.entries)}
    told = status.attempt or 0
    if told > max(known, default=0):  # its entry was written by another version, and could not be read
        known[told] = history.opened(find(made, names.WORKER, told), observed.now)
    first = None if validated or prepare.attempt.job is None else seen.to_look_up(observed, prepare.attempt, 1)
    others = (seen.to_look_up(observed, a, spec.workers.replicas) for a in _unjudged(made, known) if prepared)
    look_up = (first,) if first else tuple(name for name in others if name)

    entries, restarts = _history(observed, spec, made, known)
    workers, entries = _workers(observed, spec, made, entries)
    restarts += (status.restarts or 0) + admissions.readmitted
    return Evidence(prepare, workers, begun, prepared, admissions, entries, restarts, look_up)


def _passed(attempt: Attempt) -> bool:
    """Whether the prepare step's attempt has found everything in order."""
    return (attempt.job is not None and attempt.job.complete) or any(p.phase == "Succeeded" for p in attempt.pods)


def _prepare(observed: Observed) -> ComponentEvidence:
    made = attempts(observed, names.PREPARE)
    number = max((a.number for a in made if a.job), default=0)
    current = find(made, names.PREPARE, number)
    report = _report(observed, current)
    cause = _prepare_cause(observed, current) if number else None
    over = cause is not None and current.over(observed.now)
    before = _prepare_cause(observed, find(made, names.PREPARE, number - 1)) if over else None
    said = last_words(current.pods, observed.job.uid)
    place = before.place if before else None
    return ComponentEvidence(made, current, report, said, cause, certain=over, over=over, place_before=place)


def _prepare_cause(observed: Observed, attempt: Attempt) -> Cause | None:
    report = _report(observed, attempt)
    problem = report.problem if report else None
    return causes.attempt_cause(attempt, job_uid=observed.job.uid, processes=1, now=observed.now, problem=problem)


def _report(observed: Observed, attempt: Attempt) -> Report | None:
    """The latest report, if it is of this attempt, and of the time since a queue manager admitted it."""
    report = observed.report
    if report is None or observed.report_component != attempt.component:
        return None
    job = attempt.job if attempt.component == names.WORKER else None
    if job and job.queue_name and (observed.report_received or 0.0) < (job.started or 0.0):
        return None
    return report if (report.attempt, report.job_id) == (attempt.number, observed.job.uid) else None


def _unjudged(made: tuple[Attempt, ...], known: Mapping[int, AttemptStatus]) -> Iterator[Attempt]:
    """The newest attempt, and all that have a Job, as far as status does not say how they ended."""
    newest = max((*known, *(a.number for a in made)), default=0)
    ended = {number for number, entry in known.items() if entry.end_time is not None}
    for number in sorted({newest, *(a.number for a in made if a.job)} - ended - {0}):
        yield find(made, names.WORKER, number)


def _history(
    observed: Observed, spec: Spec, made: tuple[Attempt, ...], known: Mapping[int, AttemptStatus]
) -> tuple[dict[int, AttemptStatus], int]:
    """The entries, also of attempts whose objects are there though status says nothing of them yet, all before the
    newest closed with why they ended; and how many restarts the new ones are."""
    entries, restarts = dict(known), 0
    newest = max((*known, *(a.number for a in made)), default=0)
    for attempt in made:
        if attempt.number > max(entries, default=0):
            before = entries.get(attempt.number - 1)
            restarts += 1 if attempt.number > 1 and not (before and history.suspended(before)) else 0
            entries[attempt.number] = history.opened(attempt, observed.now)
        entry = entries.get(attempt.number)
        if entry is not None and attempt.number < newest and entry.end_time is None:
            said = last_words(attempt.pods, observed.job.uid)
            entry = history.with_outcome(entry, said, attempt) if said else entry
            cause = _worker_cause(observed, spec, attempt, entry, None)
            gone = Cause(Reason.POD_DELETED, "its pods are gone")
            entries[attempt.number] = history.ended(entry, attempt, cause or gone, observed.now)
    return entries, restarts


def _workers(
    observed: Observed, spec: Spec, made: tuple[Attempt, ...], entries: dict[int, AttemptStatus]
) -> tuple[ComponentEvidence, dict[int, AttemptStatus]]:
    """The newest attempt of the workers, and the entries with what it says and why it ends."""
    number, now = max(entries, default=0), observed.now
    current = find(made, names.WORKER, number)
    if not number:
        return ComponentEvidence(made, current), entries
    found = ComponentEvidence(made, current, _report(observed, current), last_words(current.pods, observed.job.uid))
    entry = history.resumed(entries[number], current, suspend=spec.suspend)
    entry = history.with_report(entry, found.report, current) if found.report else entry
    entry = history.with_outcome(entry, found.outcome, current) if found.outcome else entry
    if found.succeeded:
        return found, {**entries, number: history.ended(entry, current, None, now)}
    cause = _worker_cause(observed, spec, current, entry, found.report)
    over = cause is not None and (current.over(now) or (entry.end_time is not None and not current.held))
    certain = cause is not None and (over or _certain(current, cause, now))
    if certain:
        entry = history.with_cause(entry, cause)
    if cause is not None and cause.retry is Retry.NEVER:
        entry = history.ended(entry, current, cause, cause.at or now)
    elif over:
        entry = history.ended(entry, current, cause, now)
    return replace(found, cause=cause, certain=certain, over=over), {**entries, number: entry}


def _certain(attempt: Attempt, cause: Cause, now: float) -> bool:
    """Whether the cause may be written down though the attempt is not over.

    A Job under a queue manager is first asked itself: a pod may be seen to leave before its Job is seen to be
    suspended.
    """
    unmanaged = attempt.job is None or attempt.job.queue_name is None
    return unmanaged or attempt.failing or cause.retry is Retry.NEVER or bool(attempt.lost(now))


def _worker_cause(
    observed: Observed, spec: Spec, attempt: Attempt, entry: AttemptStatus, report: Report | None
) -> Cause | None:
    if history.suspended(entry):
        return causes.from_record(entry)
    if spec.suspend and attempt.job is None and entry.reason is None:
        return Cause(Reason.INTERRUPTED, history.SUSPENDED)  # deleted by a suspend that was not written down
    if entry.end_time is not None and entry.reason is not None and attempt.job is None:
        return causes.from_record(entry)
    return causes.attempt_cause(
        attempt,
        job_uid=observed.job.uid,
        processes=run_config.world(spec, "any").processes_per_worker,
        now=observed.now,
        recorded=entry,
        problem=report.problem if report else None,
    )
