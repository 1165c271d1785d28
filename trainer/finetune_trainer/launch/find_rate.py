"""The entry of the learning-rate range test: one process, after the prepare step of the same configuration."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

from finetune_api.exits import COMPLETE, JobError
from finetune_api.run import RunConfig
from finetune_trainer.report.outcome import leave_outcome
from finetune_trainer.storage import trust

log = logging.getLogger(__name__)


def find_rate(config: RunConfig, points: Path) -> int:
    """Make the test and write {"rate": the one in force, "points": [[rate, loss], …]}. The exit code.

    The outcome is written where it failed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_NUM_THREADS", str(config.world.threads_per_process or 1))
    try:
        started = time.monotonic()
        trust(config.storage)
        from finetune_trainer.launch.warm_up import warm_up  # late: the variables are read when torch is imported
        from finetune_trainer.train.range_test import range_test

        points.write_text(json.dumps(range_test(config, warm_up(config), started)) + "\n")
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, JobError):
            log.error("%s", error)
        else:
            log.exception("the range test failed")
        return leave_outcome(config, error, None).exit_code
    return COMPLETE
