"""One rank's failure is told to all: each ends with the root cause's reason and hint, wherever the others wait."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import COMPLETE, EXITS, JobError, Reason
from finetune_api.report import Outcome
from finetune_api.run import World
from finetune_trainer import prepare
from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import ClassExample
from finetune_trainer.batches.rank_batch import RankBatch
from finetune_trainer.checkpoint import Checkpointer
from finetune_trainer.distributed import rendezvous
from finetune_trainer.distributed.ddp import DdpGradients
from finetune_trainer.distributed.flat import FlatGradients
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.evaluate import loop as evaluation
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch.launcher import launch
from finetune_trainer.model.load import load_model
from finetune_trainer.objectives import cross_entropy as objective
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train import finish, prefetch, session, worker
from finetune_trainer.train.step import train_step
from support.jobs import job_config
from support.models import mails, write_jsonl
from support.ranks import free_port, run_ranks

CPU_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    " bytes."
)
CUDA_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
CUBLAS_MEMORY = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.fixture(scope="module")
def prepared(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_jsonl(folder / "data" / "train.jsonl", mails(60, seed=1))
    shutil.copytree(bert, folder / "model")
    assert prepare.main(config(folder, folder)) == COMPLETE
    return folder


def config(inputs: Path, folder: Path, workers: int = 1, port: int = 29500) -> Any:
    return job_config(
        folder,
        world=World(
            workers=workers,
            processes_per_worker=2 // workers,
            device="cpu",
            threads_per_process=1,
            master_address="localhost",
            master_port=port,
            timeout_seconds=60,
        ),
        model={"uri": (inputs / "model").as_uri()},
        data={"train": {"uri": f"{inputs.as_uri()}/data/*"}, "validation": {"fraction": 0.2}},
        training={"maxSteps": 3, "globalBatchSize": 8, "microBatchSize": 2},
        checkpoints={"everySteps": 1},
        evaluation={"everySteps": 2},
    )


def on_rank(
    rank: int, where: Any, name: str, error: Callable[[], BaseException], *, nth: int = 1
) -> Callable[[], None]:
    """Plant: on this rank the nth call of where.name raises."""

    def plant() -> None:
        original, calls = getattr(where, name), 0

        def planted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if multiprocessing.current_process().name == f"rank {rank}":
                calls += 1
                if calls == nth:
                    raise error()
            return original(*args, **kwargs)

        setattr(where, name, planted)

    return plant


FAULTS = {
    "device": (
        on_rank(1, rendezvous, "device_for", lambda: JobError(Reason.INVALID_CONFIG, "no device")),
        Reason.INVALID_CONFIG,
    ),
    "model": (on_rank(1, session, "load_model", lambda: CPU_MEMORY), Reason.OUT_OF_MEMORY),
    "checkpoint read": (
        on_rank(1, session, "_resume", lambda: JobError(Reason.STORAGE_UNAVAILABLE, "gone")),
        Reason.STORAGE_UNAVAILABLE,
    ),
    "batch": (on_rank(1, prefetch, "lay_out", lambda: KeyError("labels"), nth=2), Reason.INTERNAL_ERROR),
    "forward": (on_rank(1, objective, "in_full_precision", lambda: CPU_MEMORY, nth=3), Reason.OUT_OF_MEMORY),
    "backward": (on_rank(0, FlatGradients, "backward", lambda: CUBLAS_MEMORY, nth=4), Reason.OUT_OF_MEMORY),
    "norm": (on_rank(1, FlatGradients, "reduce", lambda: CUDA_MEMORY), Reason.OUT_OF_MEMORY),
    "optimizer": (on_rank(0, torch.optim.AdamW, "step", lambda: CUDA_MEMORY), Reason.OUT_OF_MEMORY),
    "evaluation": (on_rank(1, objective, "in_full_precision", lambda: CUDA_MEMORY, nth=5), Reason.OUT_OF_MEMORY),
    "held-out rows": (
        on_rank(0, evaluation, "_windows", lambda: JobError(Reason.DATA_CHANGED, "changed")),
        Reason.DATA_CHANGED,
    ),
    "checkpoint": (
        on_rank(0, Checkpointer, "_commit", lambda: JobError(Reason.ACCESS_DENIED, "no")),
        Reason.ACCESS_DENIED,
    ),
    "best": (on_rank(1, worker, "finish", lambda: ValueError("ours")), Reason.INTERNAL_ERROR),
    "export": (
        on_rank(0, finish, "export", lambda: OSError(errno.ENOSPC, "No space left on device")),
        Reason.DISK_FULL,
    ),
}


def pod(index: int, wanted: Any, plant: Callable[[], None]) -> Any:
    """A launcher in a process of its own, with the fault in its workers."""

    def work() -> None:
        os.environ["JOB_COMPLETION_INDEX"] = str(index)
        plant()
        os._exit(launch(wanted))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def folder_for(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared / "out", tmp_path / "out")
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS)
def test_every_rank_ends_with_the_reason_of_the_one_that_failed(prepared: Path, tmp_path: Path, fault: str) -> None:
    plant, reason = FAULTS[fault]
    wanted = config(prepared, folder_for(prepared, tmp_path))
    process = pod(0, wanted, plant)
    process.join(90)
    assert process.exitcode == EXITS[reason].code
    told = [json.loads(path.read_text()) for path in sorted((tmp_path / "scratch").glob("launch-*/rank-*.json"))]
    assert [one["code"] for one in told] == [EXITS[reason].code] * 2
    assert told[0]["problem"] == told[1]["problem"]
    outcome = Outcome.model_validate_json((tmp_path / "termination").read_text())
    assert outcome.problem is not None
    assert outcome.problem.to_json() == told[0]["problem"]
    assert (outcome.problem.hint or "").startswith(EXITS[reason].hint.rstrip("."))
    assert told[0]["problem"]["rank"] == failing_rank(plant)
    last = json.loads((tmp_path / "reports.jsonl").read_text().splitlines()[-1])
    assert last["problem"] == told[0]["problem"]


def failing_rank(plant: Any) -> int:
    return int(plant.__closure__[plant.__code__.co_freevars.index("rank")].cell_contents)


@pytest.mark.parametrize("fault", ["batch", "backward", "best"])
def test_the_launcher_of_every_node_says_it_too(prepared: Path, tmp_path: Path, fault: str) -> None:
    plant, reason = FAULTS[fault]
    port, words = free_port(), []
    folder_for(prepared, tmp_path)
    pods = []
    for index in (0, 1):
        wanted = config(prepared, tmp_path, 2, port)
        words.append(tmp_path / f"termination-{index}")
        reporting = wanted.reporting.model_copy(update={"termination_file": str(words[-1])})
        pods.append(pod(index, wanted.model_copy(update={"reporting": reporting}), plant))
    for process in pods:
        process.join(90)
    assert [process.exitcode for process in pods] == [EXITS[reason].code] * 2
    said = [Outcome.model_validate_json(path.read_text()).problem for path in words]
    assert said[0] == said[1]
    assert said[0] is not None
    assert said[0].rank == failing_rank(plant)


def step_that_fails(ranks: Ranks, folder: Path, kind: Any, micro: int, error: BaseException, when: str) -> Any:
    """Rank 0 raises in the forward or backward pass of its last micro-batch; rank 1 has one micro-batch more."""
    model = load_model(folder, task_for("text-classification").head, labels=("a", "b"), seed=0, pad_id=0)
    gradients = kind(model, ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = collate([ClassExample([2, 9, 10, 3], None, 4, label=1)] * 2, 0, 16)
    if ranks.rank == 0:
        calls = 0
        where, name = (gradients, "backward") if when == "backward" else (model.bert, "forward")
        original = getattr(where, name)

        def fails(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == micro:
                raise error
            return original(*args, **kwargs)

        setattr(where, name, fails)
    before = [p.detach().clone() for p in model.parameters()]
    share = RankBatch([batch] * (micro + ranks.rank), 2 * micro, 8 * micro)
    try:
        train_step(
            gradients,
            objective.cross_entropy(),
            optimizer,
            share,
            ranks,
            step=1,
            rate=1e-3,
            max_norm=1.0,
            seed=0,
            stop=lambda: False,
        )
    except JobError as caught:
        same = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        end = ranks.peers.report_failure(problem_for(caught, ranks.rank))
        ranks.peers.linger()
        return end.reason, end.hint, end.rank, same
    return "went on"


@pytest.mark.parametrize("kind", [FlatGradients, DdpGradients])
@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_memory_that_runs_out_in_the_last_micro_batch_ends_all_before_anything_is_reduced(
    bert: Path, kind: Any, micro: int, when: str
) -> None:
    """The way for accelerators too, tried on CPUs."""
    expected = (Reason.OUT_OF_MEMORY, EXITS[Reason.OUT_OF_MEMORY].hint, 0, True)
    assert run_ranks(2, step_that_fails, bert, kind, micro, CUDA_MEMORY, when) == [expected, expected]


@pytest.mark.parametrize("error", [CPU_MEMORY, CUBLAS_MEMORY, MemoryError()])
def test_memory_has_many_names(bert: Path, error: BaseException) -> None:
    expected = (Reason.OUT_OF_MEMORY, EXITS[Reason.OUT_OF_MEMORY].hint, 0, True)
    assert run_ranks(2, step_that_fails, bert, FlatGradients, 1, error, "forward") == [expected, expected]
