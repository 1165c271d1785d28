"""The pod's entry: brings the model to this node, starts the workers, and ends with the root cause's own exit code.

Ranks are static: the node's is JOB_COMPLETION_INDEX (torchrun's rendezvous sorts host names, job-10 before job-2). The
workers are forked from a process that has imported torch and transformers once. SIGTERM is passed on; the workers
checkpoint and leave with Interrupted. Exit 0 means only that the run is complete and its artefacts are committed: a
worker that dies by a signal, says nothing, or ends early never yields 0. The outcome goes to the termination message.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from pathlib import Path

from finetune_api.exits import COMPLETE, EXITS, JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch.completed import report_completed
from finetune_trainer.launch.processes import run_workers
from finetune_trainer.launch.signals import LauncherSignals
from finetune_trainer.launch.worker_end import INTERNAL, WorkerEnd, root_cause
from finetune_trainer.methods import packages
from finetune_trainer.report.outcome import load_snapshot, outcome_for, write_outcome
from finetune_trainer.storage import trust

log = logging.getLogger(__name__)


def launch(config: RunConfig) -> int:
    """Run this node's workers to their end; the exit code. Writes the outcome."""
    started = time.monotonic()
    folder: Path | None = None
    signals = LauncherSignals()
    try:
        folder = Path(tempfile.mkdtemp(prefix="launch-", dir=_scratch(config)))
        node = _node_rank(config)
        first = node * config.world.processes_per_worker
        log.info("attempt %d, worker %d of %d", config.attempt, node, config.world.workers)
        trust(config.storage)
        if report_completed(config, folder / "snapshot.json" if first == 0 else None):
            end = WorkerEnd(first, COMPLETE, time.monotonic())
        else:
            model = _prepare_node(config)
            log.info("the model is here and its classes are imported, after %.1f s", time.monotonic() - started)
            end = root_cause(run_workers(config, first, model, folder, signals, started))
    except Exception as error:
        problem = problem_for(error, None, [config.scratch])
        if problem.reason is Reason.INTERNAL_ERROR:
            log.exception("the launcher failed")
        rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0")) * config.world.processes_per_worker
        end = WorkerEnd(rank, EXITS[problem.reason].code or INTERNAL, time.monotonic(), problem)
    _write_outcome(config, folder, end)
    return end.code


def _node_rank(config: RunConfig) -> int:
    rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    if not 0 <= rank < config.world.workers:
        raise JobError(
            Reason.INVALID_CONFIG, f"JOB_COMPLETION_INDEX is {rank}, and there are {config.world.workers} workers"
        )
    return rank


def _scratch(config: RunConfig) -> Path:
    folder = Path(config.scratch)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _prepare_node(config: RunConfig) -> Path:
    """Fetch and import once what every worker needs, before they are forked; the model's folder.

    No thread runs afterwards, and CUDA stays untouched.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost peer is told once, in words, not by a stack of C++
    warnings.filterwarnings("ignore", category=FutureWarning, module="|".join(("torch", "transformers", *packages())))
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(config)))
    from finetune_trainer.launch.warm_up import warm_up  # late: the variables are read when torch is imported

    return warm_up(config)


def _threads(config: RunConfig) -> int:
    return config.world.threads_per_process or max(1, len(os.sched_getaffinity(0)) // config.world.processes_per_worker)


def _write_outcome(config: RunConfig, folder: Path | None, end: WorkerEnd) -> None:
    """The termination message: how the worker to blame ended, with what the last snapshot of rank 0 knows."""
    outcome = outcome_for(config, None, load_snapshot(folder / "snapshot.json") if folder else None)
    write_outcome(config, outcome.model_copy(update={"exit_code": end.code, "problem": end.problem}))
    if end.problem is not None:
        log.error("%s: %s (%s)", end.problem.reason, end.problem.message, end.problem.hint)
