"""The prepare step as a process: run it, tell the reporter, write the last word, and give the exit code."""

from __future__ import annotations

import logging

from finetune_api.exits import JobError
from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.prepare.pipeline import prepare
from finetune_trainer.report.outcome import leave_outcome
from finetune_trainer.report.reporter import Reporter

log = logging.getLogger(__name__)


def main(config: RunConfig) -> int:
    """Prepare the job. Returns the process's exit code: 0, or the failure's."""
    reporter = Reporter(config, stage=Stage.PREPARING)
    error: BaseException | None = None
    try:
        profile = prepare(config, reporter)
        log.info("prepared: %d training rows, %s steps", profile.data.train_rows, profile.resolved.total_steps)
    except (Exception, KeyboardInterrupt) as caught:
        error = caught
        reporter.update(problem=problem_for(caught, None, [config.scratch]))
        if isinstance(caught, JobError):
            log.error("%s", caught)
        else:
            log.exception("the prepare step failed")
    reporter.close()
    return leave_outcome(config, error, reporter.snapshot).exit_code
