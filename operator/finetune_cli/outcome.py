"""How one step of the trainer ended, and what follows from it: the contract's table, read as the operator reads it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from finetune_api.exits import BY_CODE, COMPLETE, EXITS, Reason, Retry
from finetune_api.report import Outcome
from finetune_api.status import Failure
from finetune_cli.process import Step


@dataclass(frozen=True, slots=True)
class End:
    """The end of one step; `failure` is None if it is complete."""

    step: Step
    code: int
    failure: Failure | None
    outcome: Outcome | None
    log: Path

    @property
    def retry(self) -> Retry:
        """What the contract says of this end."""
        return EXITS[Reason(self.failure.reason)].retry if self.failure else Retry.NEVER


def end_of(step: Step, code: int, outcome: Outcome | None, log: Path) -> End:
    """Read the exit code first, then the last word; a process that said nothing is quoted by the end of its log."""
    if code == COMPLETE:
        return End(step, code, None, outcome, log)
    problem = outcome.problem if outcome else None
    if problem is not None:
        failure = Failure(
            reason=problem.reason, message=problem.message, hint=problem.hint or EXITS[problem.reason].hint, field=problem.field,
            rank=problem.rank, exit_code=code,
        )  # fmt: skip
    elif code in BY_CODE:
        failure = Failure(
            reason=BY_CODE[code].reason, message=BY_CODE[code].cause, hint=BY_CODE[code].hint, exit_code=code
        )
    else:
        failure = Failure(
            reason=Reason.CRASHED, message=_crash(step, code, log), hint=f"Read its log: {log}"[:512], exit_code=code
        )
    return End(step, code, failure, outcome, log)


def _crash(step: Step, code: int, log: Path) -> str:
    what = f"the {'prepare step' if step == 'prepare' else 'trainer'} "
    if code > 128:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = f"signal {code - 128}"
        return what + f"was killed by {name}" + (", perhaps because memory ran out" if name == "SIGKILL" else "")
    return (what + f"left with exit code {code}: {last_line(log)}")[:1024]


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
