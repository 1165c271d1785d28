"""The workers' attempts: made one after the other, never two at once, until one is complete or the cause forbids
another."""

from __future__ import annotations

from finetune_api.exits import Reason, Retry
from finetune_api.report import Report
from finetune_api.status import AttemptStatus, ConditionType, Failure, OutputStatus, Phase
from finetune_api.times import seconds
from finetune_operator.job.attempt import causes, evidence, history, waiting
from finetune_operator.job.attempt.attempt import Attempt, attempts, find
from finetune_operator.job.children import image, objects, run_config, scratch
from finetune_operator.job.draft import Draft
from finetune_operator.job.policies import deadline, reports_degraded, requeue, restart, suspend
from finetune_operator.job.policies.prepare import look
from finetune_operator.job.status import goodput, phase
from finetune_operator.job.status.merge import with_outcome, with_report
from finetune_operator.plan import names
from finetune_operator.plan.plan import Patch

KEEP = 2
"""The Jobs of so many attempts stay, so that `kubectl logs` works after a failure."""


def step(draft: Draft) -> None:
    """Take the workers one step on. The prepare step has passed."""
    made = attempts(draft.observed, names.WORKER)
    if made:
        requeue.note(draft, made[-1])
    entries = _entries(draft, made)
    number = max(entries, default=0)
    current = find(made, names.WORKER, number)
    if draft.look_up:
        return
    if not number:
        if deadline.passed(draft) or suspend.hold(draft, made, attempts(draft.observed, names.PREPARE)):
            return
        _make(draft, made, 1, 0, None)
        return

    report = _report(draft, current)
    entry = entries[number] = _hear(draft, current, suspend.taken_back(draft, current, entries[number]), report)
    if current.job is not None and current.job.complete:
        entries[number] = history.ended(entry, current, None, draft.now)
        _store(draft, entries)
        _succeed(draft, current)
        return

    cause = _cause(draft, current, entry, report)
    over = current.over(draft.now) or (entry.end_time is not None and not current.held)
    if cause is not None and (over or _told(current, cause, draft.now)):
        entry = history.with_cause(entry, cause)
    if cause is not None and cause.retry is Retry.NEVER:
        entries[number] = history.ended(entry, current, cause, cause.at or draft.now)
        _store(draft, entries)
        draft.fail(cause.failure(), cause.at)
        return
    if over:
        entry = history.ended(entry, current, cause, draft.now)
    entries[number] = entry
    _store(draft, entries)
    if deadline.passed(draft):
        return
    stops = draft.spec.suspend and not over and not current.doomed
    if suspend.hold(draft, made, attempts(draft.observed, names.PREPARE)):
        if stops and entry.reason is None:
            entries[number] = entry.model_copy(
                update={"reason": Reason.INTERRUPTED.value, "message": history.SUSPENDED}
            )
            _store(draft, entries)
        return
    if over:
        assert cause is not None
        _next(draft, made, current, entry, cause)
    else:
        _going_on(draft, current, cause, report, entries)
    for old in made:
        if old.job is not None and (old.number <= number - KEEP or old.stranded(draft.now)):
            draft.delete.extend(objects.removal(old.job.name, names.WORKER, old.job.uid))


def _entries(draft: Draft, made: tuple[Attempt, ...]) -> dict[int, AttemptStatus]:
    """All attempts by number: those of status, and those whose objects are there though status says nothing of them
    yet."""
    known = {a.number: a for a in reversed(draft.status.attempts)}
    told = draft.status.attempt or 0
    if told > max(known, default=0):  # its entry was written by another version, and could not be read
        known[told] = history.opened(find(made, names.WORKER, told), None, draft.now)
    newest = max((*known, *(t.number for t in made)), default=0)
    ended = {number for number, entry in known.items() if entry.end_time is not None}
    for number in sorted({newest, *(t.number for t in made if t.job)} - ended - {0}):
        evidence.lacking(draft, find(made, names.WORKER, number))
    restarts = draft.status.restarts or 0
    for attempt in made:
        if attempt.number not in known and attempt.number > max(known, default=0):
            before = known.get(attempt.number - 1)
            restarts += 1 if attempt.number > 1 and not (before and history.suspended(before)) else 0
            known[attempt.number] = history.opened(attempt, None, draft.now)
        entry = known.get(attempt.number)
        if entry is not None and attempt.number < newest and entry.end_time is None:
            said = history.last_words(attempt, draft.observed.job.uid)
            entry = history.with_outcome(entry, said, attempt) if said else entry
            cause = _cause(draft, attempt, entry, None) or causes.Cause(Reason.POD_DELETED, "its pods are gone")
            known[attempt.number] = history.ended(entry, attempt, cause, draft.now)
    draft.update(restarts=restarts, attempt=newest)
    return known


def _store(draft: Draft, entries: dict[int, AttemptStatus]) -> None:
    found = history.kept((*entries.values(), *requeue.earlier(draft.status.attempts)))
    draft.update(attempts=found, goodput=goodput.goodput(found))


def _report(draft: Draft, attempt: Attempt) -> Report | None:
    """The latest report, if it is of this attempt, and of the time since a queue manager admitted it."""
    observed = draft.observed
    report = observed.report
    if report is None or observed.report_component != names.WORKER:
        return None
    if attempt.job and attempt.job.queue_name and (observed.report_received or 0.0) < (attempt.job.started or 0.0):
        return None
    return report if (report.attempt, report.job_id) == (attempt.number, observed.job.uid) else None


def _hear(draft: Draft, current: Attempt, entry: AttemptStatus, report: Report | None) -> AttemptStatus:
    """Merge what the attempt says into status, and into its entry, which is returned."""
    if report is not None:
        ended = not any(p.running for p in current.pods if p.index == 0)
        draft.status = with_report(draft.status, report, draft.observed.report_received, ended=ended)
        entry = history.with_report(entry, report, current)
    said = history.last_words(current, draft.observed.job.uid)
    if said is not None:
        draft.status = with_outcome(draft.status, said)
        entry = history.with_outcome(entry, said, current)
    return entry


def _cause(draft: Draft, attempt: Attempt, entry: AttemptStatus, report: Report | None) -> causes.Cause | None:
    if history.suspended(entry):
        return causes.from_record(entry)
    if draft.spec.suspend and attempt.job is None and entry.reason is None:
        return causes.Cause(Reason.INTERRUPTED, history.SUSPENDED)  # deleted by a suspend that was not written down
    if entry.end_time is not None and entry.reason is not None and attempt.job is None:
        return causes.from_record(entry)
    return causes.attempt_cause(
        attempt,
        job_uid=draft.observed.job.uid,
        processes=run_config.world(draft.spec, "any").processes_per_worker,
        now=draft.now,
        recorded=entry,
        problem=report.problem if report else None,
    )


def _told(attempt: Attempt, cause: causes.Cause, now: float) -> bool:
    """Whether the cause may be written down though the attempt is not over.

    A Job under a queue manager is first asked itself: a pod may be seen to leave before its Job is seen to be
    suspended.
    """
    sure = attempt.failing or attempt.job is None or attempt.job.queue_name is None
    return sure or cause.retry is Retry.NEVER or bool(attempt.lost(now))


def _succeed(draft: Draft, current: Attempt) -> None:
    if draft.status.output is None:
        draft.update(output=OutputStatus(uri=draft.spec.output.uri))
    progress = draft.status.progress
    if progress is not None:
        draft.update(progress=progress.model_copy(update={"percent": 100.0, "eta_seconds": 0.0}))
    assert current.job is not None
    draft.succeed(current.job.finished)


def _next(draft: Draft, made: tuple[Attempt, ...], current: Attempt, entry: AttemptStatus, cause: causes.Cause) -> None:
    """Decide on what follows the end of an attempt, and do it when it is due."""
    record = history.record(draft.status)
    used = current.job.restarts_used if current.job else record.used
    if history.suspended(entry):
        _make(draft, made, current.number + 1, used, None)
        return
    before = next((a.place for a in draft.status.attempts if a.number == current.number - 1), None)
    follows = restart.after(
        cause,
        used=used,
        progress=record.progress,
        fruitless=record.fruitless,
        max_restarts=draft.spec.restart_policy.max_restarts,
        before=before,
    )
    if isinstance(follows, Failure):
        draft.fail(follows, seconds(entry.end_time))
        return
    due = (seconds(entry.end_time) or draft.now) + follows.delay
    if due > draft.now:
        draft.condition(ConditionType.RUNNING, False, "Restarting")
        words = (
            f"attempt {current.number + 1} waits {follows.delay:g} s, since the last ones came to nothing; the last"
            f" one: {cause.message}"
        )
        draft.say(Phase.RESTARTING, cause.reason, words)
        draft.wake_in(due - draft.now)
        return
    _make(draft, made, current.number + 1, follows.used, cause)


def _make(draft: Draft, made: tuple[Attempt, ...], number: int, used: int, cause: causes.Cause | None) -> None:
    """Make an attempt, once no pod of an earlier one is at work."""
    observed = draft.observed
    draft.condition(ConditionType.RUNNING, False, "Restarting" if number > 1 else "Starting")
    again = f"after {cause.reason}: {cause.message}" if cause else "after the suspension"
    for attempt in made:
        alive = attempt.alive(draft.now)
        if alive:
            draft.say(
                Phase.RESTARTING,
                cause.reason if cause else "Resuming",
                f"waiting for pod {alive[0].name} of attempt {attempt.number} to leave",
            )
            suspend.wake_when_lost(draft, attempt)
            return
    named = image.of_workers(draft, made)
    spec = scratch.sized(draft.spec, draft.status.resolved)
    draft.create.extend(objects.attempt(observed.job, spec, observed.settings, names.WORKER, number, used, named))
    if number == 1:
        draft.say(Phase.QUEUED, "Starting", "the workers are being made")
        return
    draft.say(Phase.RESTARTING, cause.reason if cause else "Resuming", f"attempt {number} is being made, {again}")
    if cause:
        draft.note("Warning", "Restarting", f"attempt {number} follows {again}")


def _going_on(
    draft: Draft, current: Attempt, cause: causes.Cause | None, report: Report | None, entries: dict[int, AttemptStatus]
) -> None:
    """The attempt goes on, or is about to end: explain where it is."""
    now_in = phase.of_workers(current, report, draft.status)
    if cause is not None and _told(current, cause, draft.now):
        draft.condition(ConditionType.RUNNING, False, cause.reason, cause.message)
        draft.say(
            Phase.RESTARTING,
            cause.reason,
            f"{cause.message}; the next attempt starts when all pods of this one have ended",
        )
        suspend.wake_when_lost(draft, current)
        return
    if reports_degraded.of_node(draft, current):
        return
    running = now_in in (Phase.RUNNING, Phase.EVALUATING)
    began = draft.condition(ConditionType.RUNNING, running, now_in.value)
    if running and began:
        draft.note("Normal", "Running", f"attempt {current.number} makes steps")
    _explain(draft, current, now_in, entries)
    _renew_ca(draft, current)
    look(draft, current)
    suspend.wake_when_lost(draft, current)
    reports_degraded.judge(draft, current)


def _explain(draft: Draft, current: Attempt, now_in: Phase, entries: dict[int, AttemptStatus]) -> None:
    if now_in in (Phase.RUNNING, Phase.EVALUATING):
        draft.say(now_in)
        return
    if current.held:
        again = " again" if requeue.preempted(entries[current.number]) else ""
        draft.say(now_in, suspend.QUEUED, f"{requeue.whose(current)} has not admitted the workers{again}")
        return
    why = waiting.why(draft.observed, current)
    if why:
        draft.say(now_in, why.reason, why.message)
        return
    before = entries.get(current.number - 1)
    words = "the workers wait for their nodes" if now_in is Phase.QUEUED else "the workers load the model and the data"
    draft.say(now_in, "Starting", f"attempt {current.number}, after {before.reason}: {words}" if before else words)


def _renew_ca(draft: Draft, current: Attempt) -> None:
    """Hand a new CA of the report server to workers that are at work; they read it again for each connection."""
    ca, job = draft.observed.settings.report_ca, current.job
    if job is None or not ca or not job.ca_digest or job.ca_digest == objects.ca_digest(ca):
        return
    draft.patch.append(Patch("ConfigMap", job.name, None, {"data": {"ca.crt": ca}}))
    draft.patch.append(
        Patch("Job", job.name, job.uid, {"metadata": {"annotations": {names.CA_DIGEST: objects.ca_digest(ca)}}})
    )
