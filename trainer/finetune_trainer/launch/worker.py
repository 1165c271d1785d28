"""The main function of a forked worker: it trains, writes down how it ended, and exits with that code."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

from finetune_api.exits import COMPLETE, EXITS, JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.distributed import waits
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch.signals import HANDLED, StopFlag
from finetune_trainer.launch.worker_end import INTERNAL, PEER_LOST, exit_worker, problem_of

log = logging.getLogger(__name__)


def worker(config: RunConfig, info: RankInfo, model: Path, folder: Path, started: float) -> None:
    """Never returns. `folder` takes the record of its end; `started` is when the launcher began (monotonic)."""
    stop = StopFlag().install()
    waits.watch(lambda seconds: _leave_silent_peer(folder, info.rank, seconds))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    code, problem = COMPLETE, None
    try:
        from finetune_trainer.train.worker import run_worker

        run_worker(config, info, model, folder, started, stop)
    except BaseException as error:
        problem = problem_for(error, info.rank, [config.scratch])
        code = EXITS[problem.reason].code or INTERNAL
        if not isinstance(error, JobError):
            log.exception("rank %s failed", info.rank)
    exit_worker(folder, info.rank, code, problem)


def _leave_silent_peer(folder: Path, rank: int, seconds: float) -> None:
    message = f"rank {rank} was told to stop while another worker had not answered for {seconds:.0f} s"
    exit_worker(folder, rank, PEER_LOST, problem_of(Reason.PEER_LOST, message, rank))
