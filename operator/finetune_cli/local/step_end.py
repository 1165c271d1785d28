"""How one step of the trainer ended: the contract's cause, read from the exit code first and the last word second."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from finetune_api.exits import BY_CODE, COMPLETE, Reason
from finetune_api.report import Outcome
from finetune_cli.local.process import Step
from finetune_cli.terminal import quoted
from finetune_operator.job.attempt.causes import Cause


@dataclass(frozen=True, slots=True)
class StepEnd:
    """The end of one step; `cause` is None if it is complete."""

    step: Step
    code: int
    cause: Cause | None
    outcome: Outcome | None
    log: Path


def step_end(step: Step, code: int, outcome: Outcome | None, log: Path) -> StepEnd:
    """What an exit code, the last word and, of a process that said nothing, the end of its log say."""
    if code == COMPLETE:
        return StepEnd(step, code, None, outcome, log)
    problem = outcome.problem if outcome else None
    if problem is not None:
        cause = Cause(problem.reason, problem.message, problem.hint, problem.field, problem.rank, code, problem.place)
    elif code in BY_CODE:
        cause = Cause(BY_CODE[code].reason, BY_CODE[code].cause, exit_code=code)
    else:
        cause = Cause(Reason.CRASHED, _crash(step, code, log), hint=f"Read its log: {quoted(log)}", exit_code=code)
    return StepEnd(step, code, cause, outcome, log)


def _crash(step: Step, code: int, log: Path) -> str:
    what = f"the {'prepare step' if step == 'prepare' else 'trainer'} "
    if code <= 128:
        return f"{what}left with exit code {code}: {last_line(log)}"
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        name = f"signal {code - 128}"
    return f"{what}was killed by {name}" + (", perhaps because memory ran out" if name == "SIGKILL" else "")


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return "it wrote no log"
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
