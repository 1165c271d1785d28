"""Any exception as a Problem: the contract's reason, message and hint, redacted and within the contract's bounds."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable
from pathlib import Path

from finetune_api.exits import EXITS, JobError, Reason
from finetune_api.report import Problem
from finetune_api.text import clip
from finetune_trainer.failures import disk, memory
from finetune_trainer.failures.redact import redact

KNOWN = "finetune_problem"
"""The attribute of an error that keeps the Problem made from it."""


class PeerFailed(JobError):
    """The failure of another rank, in its own words; `problem.rank` says which."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason, problem.message, hint=problem.hint, field=problem.field)
        self.problem = problem


def problem_for(error: BaseException, rank: int | None = None, folders: Iterable[str] = ()) -> Problem:
    """What went wrong, in the contract's words and within its bounds. `folders`: where a disk may be full."""
    if isinstance(error, PeerFailed):
        return error.problem
    if KNOWN not in error.__dict__:  # the first look counts: a traceback grows, and a disk fills, on the way up
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
