"""The last word of a process: what went wrong in the contract's words, and all that is known, for the termination
message.

It carries the end result where no report got through, so it is made from the last snapshot and never raises.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune_api.exits import COMPLETE, EXITS, JobError, Reason
from finetune_api.report import Outcome, Problem, Report
from finetune_api.run import RunConfig
from finetune_api.text import clip
from finetune_trainer.distributed.trouble import PeerFailed
from finetune_trainer.failures import disk, memory
from finetune_trainer.failures.redact import redact

log = logging.getLogger(__name__)

KNOWN = "finetune_problem"
"""The attribute of an error that keeps what problem_for said of it."""


def problem_for(error: BaseException, rank: int | None = None, folders: Iterable[str] = ()) -> Problem:
    """What went wrong, in the contract's words and within its bounds. `folders`: where a disk may be full."""
    if isinstance(error, PeerFailed):
        return error.problem
    if (
        KNOWN not in error.__dict__
    ):  # the first look counts: a traceback grows, and a disk fills, while it is raised further
        error.__dict__[KNOWN] = _problem(error, rank, folders)
    problem: Problem = error.__dict__[KNOWN]
    return problem


def _problem(error: BaseException, rank: int | None, folders: Iterable[str]) -> Problem:
    if not isinstance(error, JobError) and disk.is_full(error):
        known = error.__dict__.get("finetune_full") or disk.full(error, folders)
        error.__dict__["finetune_full"] = known  # what is left on it differs from one look to the next
        error = known
    if isinstance(error, JobError):
        reason, message, hint, field, place = error.reason, error.message, error.hint, error.field, None
    else:
        reason, field = _reason_of(error), None
        where = traceback.extract_tb(error.__traceback__)
        at = f" (in {Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
        message, hint = f"{type(error).__name__}: {error}{at}", EXITS[reason].hint
        place = _place(error, where) if reason is Reason.INTERNAL_ERROR else None
    return Problem(
        reason=reason,
        message=clip(redact(message), 1024),
        hint=clip(redact(hint), 512),
        field=field and clip(field, 128),
        rank=rank,
        place=place,
    )


def _place(error: BaseException, where: traceback.StackSummary) -> str:
    """The same for the same type of error raised by the same calls, whatever its words, its process and its folders
    are.
    """
    calls = "\n".join(f"{Path(call.filename).name}:{call.name}:{call.lineno}" for call in where)
    return f"{clip(type(error).__name__, 40)}@{hashlib.sha256(calls.encode()).hexdigest()[:12]}"


def _reason_of(error: BaseException) -> Reason:
    if memory.ran_out(error):
        return Reason.OUT_OF_MEMORY
    return Reason.INTERNAL_ERROR


def outcome_for(
    config: RunConfig, error: BaseException | None, snapshot: Report | None, rank: int | None = None
) -> Outcome:
    """The Outcome of a process that ends with `error` (None: complete), with what the last snapshot knows."""
    problem = problem_for(error, rank, [config.scratch]) if error is not None else None
    code = COMPLETE if problem is None else (EXITS[problem.reason].code or EXITS[Reason.INTERNAL_ERROR].code or 44)
    known: dict[str, Any] = {}
    if snapshot is not None:
        known = {
            name: getattr(snapshot, name)
            for name in ("resumed_from_step", "best", "test", "output", "resolved", "data", "seconds")
        }
        known["step"] = snapshot.progress.step if snapshot.progress else None
        known["checkpoint"] = snapshot.checkpoints[0] if snapshot.checkpoints else None
    return Outcome(job_id=config.job.id, attempt=config.attempt, exit_code=code, problem=problem, **known)


def write_outcome(config: RunConfig, outcome: Outcome) -> None:
    """Write the termination message.

    The kubelet's file exists already and cannot be replaced, so it is written in place.
    """
    if config.reporting.termination_file:
        try:
            Path(config.reporting.termination_file).write_text(outcome.to_message())
        except OSError as error:
            log.warning("the outcome could not be written to %s: %s", config.reporting.termination_file, error)


def finish(config: RunConfig, error: BaseException | None, snapshot: Report | None, rank: int | None = None) -> Outcome:
    """Make the Outcome and write it; the process then exits with its exit_code."""
    outcome = outcome_for(config, error, snapshot, rank)
    write_outcome(config, outcome)
    return outcome


def load_snapshot(path: Path) -> Report | None:
    """The last snapshot that a Reporter with this `snapshot_file` left, or None."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
