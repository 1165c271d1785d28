"""The prepare step: a CPU pod that checks everything before a worker, and with it an accelerator, is asked for.

Its result goes into status with the condition `Validated`; from then on the step is never made again.
"""

from __future__ import annotations

from finetune_api.exits import Reason, Retry
from finetune_api.report import Report
from finetune_api.status import ConditionType, Failure, Phase
from finetune_operator.job.attempt import causes, evidence, history, waiting
from finetune_operator.job.attempt.attempt import Attempt, attempts, find, next_number
from finetune_operator.job.children import image, objects
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import Rival
from finetune_operator.job.policies import deadline, reports_degraded, requeue, restart, suspend
from finetune_operator.job.status.merge import with_outcome, with_report
from finetune_operator.plan import names

KEEP = 2
"""The Jobs of so many attempts stay, for their logs."""


def passed(draft: Draft) -> bool:
    """Whether the step has passed; takes it one step on otherwise."""
    if draft.holds(ConditionType.VALIDATED):
        return True
    made = attempts(draft.observed, names.PREPARE)
    rival = elder(draft)
    if rival is not None:
        draft.fail(_in_use(draft, rival))
        return False
    number = max((t.number for t in made if t.job), default=0)
    current = find(made, names.PREPARE, number)
    if number and evidence.lacking(draft, current):
        return False
    if number:
        _hear(draft, current)
    if number and _succeeded(current):
        _validated(draft, current)
        return True
    cause = _cause(draft, current) if number else None
    if cause is not None and cause.retry is Retry.NEVER:
        _failed(draft, cause, cause.failure())
        return False
    if deadline.passed(draft) or suspend.hold(draft, made):
        return False
    if any(t.alive(draft.now) for t in made if t.number != number):
        draft.say(Phase.PENDING, "Preparing", "waiting for the pod of the last try to leave")
        return False
    if not number:
        _make(draft, next_number(made, 0), 0)
        draft.say(Phase.PENDING, "Preparing", "the prepare pod is being made")
    elif cause is not None and current.over(draft.now):
        before = _cause(draft, find(made, names.PREPARE, number - 1))
        _again(draft, current, cause, before.place if before else None, next_number(made, number))
    else:
        _going_on(draft, current)
    for old in made:
        if old.job is not None and (old.number <= number - KEEP or old.stranded(draft.now)):
            draft.delete.extend(objects.removal(old.job.name, names.PREPARE, old.job.uid))
    return False


def recall(draft: Draft) -> None:
    """Workers were made, so the step has passed: if status does not say so yet (a crash before it was written), say
    it now."""
    if draft.holds(ConditionType.VALIDATED):
        return
    made = attempts(draft.observed, names.PREPARE)
    current = find(made, names.PREPARE, max((t.number for t in made if t.job), default=0))
    if current.job is not None and evidence.lacking(draft, current):
        return
    _hear(draft, current)
    _validated(draft, current)


def elder(draft: Draft) -> Rival | None:
    """The oldest other job that is active and gets in the way of this one's output, if it is older than this one."""
    job = draft.observed.job
    older = [r for r in draft.observed.rivals if r.active and (r.created, r.uid) < (job.created, job.uid)]
    return min(older, key=lambda r: (r.created, r.uid), default=None)


def _in_use(draft: Draft, rival: Rival) -> Failure:
    uri = draft.spec.output.uri
    whose = f"the older FineTuneJob {rival.name}"
    if rival.uri in ("", uri.rstrip("/")):
        message = f"spec.output.uri {uri} is in use by {whose}"
    elif f"{uri}/".startswith(f"{rival.uri}/"):
        message = f"spec.output.uri {uri} lies within {rival.uri}, which is in use by {whose}"
    else:
        message = f"spec.output.uri {uri} holds {rival.uri}, which is in use by {whose}"
    hint = "Give each job its own spec.output.uri, none within another's, or delete the other job first."
    return Failure(reason=Reason.OUTPUT_IN_USE, message=message, hint=hint, field="spec.output.uri")


def _report(draft: Draft, attempt: Attempt) -> Report | None:
    """The latest report, if it is of this attempt."""
    observed = draft.observed
    report = observed.report
    mine = report is not None and observed.report_component == names.PREPARE
    return report if mine and report and (report.attempt, report.job_id) == (attempt.number, observed.job.uid) else None


def _hear(draft: Draft, attempt: Attempt) -> None:
    """Take over what the step found out, by report or, where none came, from its last word."""
    report = _report(draft, attempt)
    said = history.last_words(attempt, draft.observed.job.uid)
    if report is not None:
        draft.status = with_report(draft.status, report, draft.observed.report_received)
    elif said is not None and said.data is not None:
        draft.update(data=None)
    if said is not None:
        draft.status = with_outcome(draft.status, said)


def _succeeded(attempt: Attempt) -> bool:
    return (attempt.job is not None and attempt.job.complete) or any(p.phase == "Succeeded" for p in attempt.pods)


def _cause(draft: Draft, attempt: Attempt) -> causes.Cause | None:
    report = _report(draft, attempt)
    problem = report.problem if report else None
    return causes.attempt_cause(attempt, job_uid=draft.observed.job.uid, processes=1, now=draft.now, problem=problem)


def _validated(draft: Draft, attempt: Attempt) -> None:
    data, resolved = draft.status.data, draft.status.resolved
    found = []
    if data is not None:
        found.append(f"{data.train_rows} rows to learn from in {data.objects} objects")
        if data.bad_rows:
            found.append(f"{data.bad_rows} bad rows left out")
    if resolved is not None and resolved.total_steps is not None:
        found.append(f"{resolved.total_steps} steps")
    message = ", ".join(found) or "storage, model and data are in order"
    if attempt.job is not None:
        draft.update(image=image.ran(attempt, draft.spec, draft.observed.settings))
    draft.condition(ConditionType.VALIDATED, True, "Passed", message)
    draft.note("Normal", "Validated", message)


def _failed(draft: Draft, cause: causes.Cause, failure: Failure) -> None:
    draft.condition(ConditionType.VALIDATED, False, failure.reason, failure.message)
    draft.fail(failure, cause.at)


def _make(draft: Draft, number: int, used: int) -> None:
    observed = draft.observed
    named = image.named(draft.spec, observed.settings)
    draft.create.extend(
        objects.attempt(observed.job, draft.spec, observed.settings, names.PREPARE, number, used, named)
    )


def _again(draft: Draft, attempt: Attempt, cause: causes.Cause, before: str | None, number: int) -> None:
    """Try again, within the budget; attempts beyond the second wait.

    `before`: where an unexpected error ended the last attempt.
    """
    assert attempt.job is not None
    follows = restart.after(
        cause,
        used=attempt.job.restarts_used,
        progress=False,
        fruitless=attempt.number,
        max_restarts=draft.spec.restart_policy.max_restarts,
        before=before,
    )
    if isinstance(follows, Failure):
        _failed(draft, cause, follows)
        return
    due = (attempt.job.finished or cause.at or draft.now) + follows.delay
    draft.say(Phase.RESTARTING, cause.reason, f"{cause.message}; the prepare step is tried again")
    if due > draft.now:
        draft.wake_in(due - draft.now)
        return
    _make(draft, number, follows.used)
    draft.note("Warning", "Restarting", f"prepare step: {cause.reason}: {cause.message}")


def _going_on(draft: Draft, attempt: Attempt) -> None:
    if reports_degraded.of_node(draft, attempt):
        return
    begun = any(p.begun for p in attempt.pods)
    if attempt.held:
        draft.say(Phase.QUEUED, suspend.QUEUED, f"{requeue.whose(attempt)} has not admitted the prepare step")
        return
    why = waiting.why(draft.observed, attempt)
    phase = Phase.VALIDATING if begun else Phase.PENDING
    if why and not begun:
        draft.say(phase, why.reason, why.message)
    else:
        words = "storage, credentials, model and data are being checked" if begun else "the prepare pod is starting"
        draft.say(phase, "Preparing", words)
    draft.condition(ConditionType.VALIDATED, False, "Preparing", "the prepare step has not passed yet")
    look(draft, attempt)
    suspend.wake_when_lost(draft, attempt)


def look(draft: Draft, attempt: Attempt) -> None:
    """Ask for the Events that tell why pods are missing or stuck."""
    read, again = waiting.to_read(draft.observed, attempt)
    draft.read_events.extend(read)
    if again is not None:
        draft.wake_in(again)
