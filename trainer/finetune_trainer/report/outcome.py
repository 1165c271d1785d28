"""The outcome of a process, for the termination message: how it ended, and all that is known of the run.

It carries the result where no report got through, so it is made from the last snapshot of the reports.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from finetune_api.exits import COMPLETE, EXITS, Reason
from finetune_api.report import Outcome, Report
from finetune_api.run import RunConfig
from finetune_trainer.failures.problems import problem_for

log = logging.getLogger(__name__)


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
            for name in (
                "resumed_from_step",
                "best",
                "folds",
                "test",
                "sets",
                "verdicts",
                "output",
                "resolved",
                "data",
                "seconds",
            )
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


def leave_outcome(
    config: RunConfig, error: BaseException | None, snapshot: Report | None, rank: int | None = None
) -> Outcome:
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
