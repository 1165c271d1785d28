"""One rank's whole attempt: meet the others, load, train, commit the output; a failure is reported to all ranks."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer
from finetune_trainer.distributed.peers import Peers
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.distributed.rendezvous import join, meet
from finetune_trainer.failures.problems import PeerFailed, problem_for
from finetune_trainer.storage import location
from finetune_trainer.train.finish import finish
from finetune_trainer.train.loop import loop
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.session import Session, open_session

log = logging.getLogger(__name__)

DRAIN_SECONDS = 8.0


def run_worker(
    config: RunConfig, info: RankInfo, model: Path, folder: Path, started: float, stop: Callable[[], bool]
) -> None:
    """Train the model of that folder. Returns when the output is committed; raises JobError otherwise.

    `folder` takes the last snapshot of the reports, for the launcher; `started` is when the launcher began (monotonic).
    """
    out = location(config.output.uri, config.storage)
    progress = TrainingProgress(config, info.rank, folder / "snapshot.json", started)
    session: Session | None = None
    peers: Peers | None = None
    try:
        peers = meet(info, config.world, stop)
        ranks = join(peers, config.world, config.training.precision)
        log.info("rank %d of %d has joined", info.rank, info.size)
        session = open_session(config, out, model, ranks, progress, _stop_or_failed(stop, peers))
        loop(session)
        finish(session)
        peers.leave()
    except BaseException as error:
        own = problem_for(error, info.rank, [config.scratch])
        cause = peers.report_failure(own) if peers is not None else own
        progress.report(problem=cause)
        if session is not None:
            _finish_uploads(session.checkpoints)
        if cause == own:
            raise
        log.warning("rank %d ends since rank %s failed; it was at: %s", info.rank, cause.rank, own.message)
        raise PeerFailed(cause) from error
    finally:
        progress.close()
        if peers is not None and sys.exception() is not None:
            peers.linger()


def _stop_or_failed(stop: Callable[[], bool], peers: Peers) -> Callable[[], bool]:
    """Whether a signal came, or a peer has failed and nothing more can come of this rank's work."""
    return lambda: stop() or peers.failed


def _finish_uploads(checkpoints: Checkpointer) -> None:
    """Let an upload that is under way end, for what it saves is good; but not for long."""

    def close() -> None:
        try:
            checkpoints.close()
        except Exception as error:
            log.warning("while leaving: %s", error)

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(DRAIN_SECONDS)
