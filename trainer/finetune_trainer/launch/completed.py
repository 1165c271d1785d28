"""A job that is complete is never run again: what its result says is reported once more, before anything heavy is
imported.

So an attempt whose pods were lost after the commit ends within a second, and needs neither the model nor its peers.
"""

from __future__ import annotations

from pathlib import Path

from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_trainer.output import completed
from finetune_trainer.report.reporter import Reporter
from finetune_trainer.storage import location

REPORTED = ("progress", "evaluation", "test", "sets", "verdicts", "best", "checkpoints", "resolved", "data")


def report_completed(config: RunConfig, snapshot: Path | None) -> bool:
    """Whether the job's result is committed.

    With `snapshot` (on the first node) its report is sent, and left in that file.
    """
    found = completed(location(config.output.uri, config.storage), config)
    if found is None:
        return False
    if snapshot is not None:
        reporter = Reporter(config, stage=Stage.FINISHED, snapshot_file=snapshot)
        reporter.update(output=found.output, **{name: getattr(found.report, name) for name in REPORTED})
        reporter.close()
    return True
