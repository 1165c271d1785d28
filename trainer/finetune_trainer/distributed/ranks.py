"""The ranks of one run: who they are, how they add numbers up, and how a step's gradients come together (I1, I3).

CPU: gloo, and our own reduction of one flat buffer in buckets of fixed size, so that the order of summation never
depends
on the step (torch's DDP re-builds its buckets after the first). CUDA: nccl, with accelerate for device and precision
(`accelerated.py`). No collective is begun before a rank's own part of a step is done, and none is waited for without
heeding what a peer tells: one that failed ends all with its own reason. A peer that goes away without a word, or a
collective that outlasts its time-out, ends a rank with PeerLost.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from finetune_api.exits import JobError, Reason
from finetune_api.report import Problem
from finetune_api.run import World
from finetune_trainer.distributed.failure_board import FailureBoard
from finetune_trainer.distributed.waits import waiting
from finetune_trainer.failures import memory
from finetune_trainer.failures.problems import PeerFailed

BUCKET = 4 * 1024 * 1024
"""Elements reduced at once; fixed, for the order of summation goes with it."""
POLL_SECONDS = 0.2
SPIN_SECONDS = 0.0002
"""Between two looks at a device's collective, which cannot be waited for with a limit."""
PART_SECONDS = 15.0
RENDEZVOUS_SECONDS = 900.0
"""How long the first ranks wait for the last: pods are scheduled and pull their image at different times."""
SOURCE_LINE = re.compile(r"^\[[^\]]*\.cc:\d+\] ")
"""gloo's messages begin with a line of its source."""


@dataclass(frozen=True, slots=True)
class RankInfo:
    """Where a process stands: rank of size, and which process of its node it is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


class Ranks:
    """The process group, or a lone process.

    Methods that move numbers are collective; `tell` and `hear` wait patiently.
    """

    def __init__(
        self,
        info: RankInfo,
        device: torch.device,
        *,
        precision: str = "fp32",
        store: Any = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.rank, self.size, self.local_rank = info.rank, info.size, info.local_rank
        self.device, self.precision = device, precision
        self._store, self._stop = store, stop
        self._told = 0
        self._timeout = math.inf
        self._board: FailureBoard | None = None

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sums over ranks, in float64; the same bits on every rank."""
        if self.size == 1:
            return [float(v) for v in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._reduce(total)
        return total.tolist()

    def sum_tensor(self, tensor: torch.Tensor) -> None:
        """Add up in place over ranks, in buckets of fixed size."""
        if self.size > 1:
            for bucket in tensor.split(BUCKET):
                self._reduce(bucket)

    def _reduce(self, tensor: torch.Tensor) -> None:
        """Add up in place over ranks. A peer that failed never comes: its word ends the wait, as PeerFailed."""
        self.raise_if_peer_failed()
        with peers():
            work = dist.all_reduce(tensor, async_op=True)
            deadline = time.monotonic() + self._timeout
            while not work.is_completed():
                self.raise_if_peer_failed()
                if time.monotonic() > deadline:
                    raise JobError(Reason.PEER_LOST, f"the other workers did not answer for {self._timeout:.0f} s")
                if self.device.type == "cuda":
                    time.sleep(SPIN_SECONDS)
                    continue
                with contextlib.suppress(RuntimeError):  # not yet; of a work that failed the next line tells
                    work.wait(timedelta(seconds=POLL_SECONDS))
            work.wait()

    def raise_if_peer_failed(self) -> None:
        """Raise PeerFailed if a rank has failed."""
        if self._board is not None and self._board.cause is not None:
            raise PeerFailed(self._board.cause)

    @property
    def peer_failed(self) -> bool:
        """Whether a rank has failed."""
        return self._board is not None and self._board.cause is not None

    def report_failure(self, problem: Problem) -> Problem:
        """Tell all ranks why this one ends; the problem that it ends with, which is the root cause's.

        Waits for seconds at most.
        """
        return self._board.report(problem) if self._board is not None else problem

    def linger(self) -> None:
        """The last act of a rank that failed: rank 0, which holds the store, stays until the others know why."""
        if self._board is not None:
            self._board.linger()

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes (JSON), on every rank.

        Takes as long as it takes; a told stop or a dead rank 0 ends the wait.
        """
        self._told += 1
        key = f"told/{self._told}"
        if self.rank == 0:
            value = make()
            if self.size > 1:
                with peers():
                    self._store.set(key, json.dumps(value))
            return value
        self._await(lambda: self._store.check([key]))
        with peers():
            return json.loads(self._store.get(key))

    def _await(self, ready: Callable[[], bool], seconds: float = float("inf")) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.raise_if_peer_failed()
            with peers():
                if ready():
                    return
            if self._stop():
                raise JobError(Reason.INTERRUPTED, f"rank {self.rank} was told to stop while it waited for its peers")
            if time.monotonic() > deadline:
                raise JobError(Reason.PEER_LOST, f"rank {self.rank} waited {seconds:.0f} s for its peers to start")
            time.sleep(POLL_SECONDS)

    def _await_all(self, key: str) -> None:
        """Until all ranks have come as far."""
        with peers():
            self._store.add(key, 1)
        self._await(lambda: int(self._store.add(key, 0)) >= self.size, RENDEZVOUS_SECONDS)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the forward pass computes in."""
        return (
            torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        )

    def part(self) -> None:
        """The end of a run that went well: rank 0, which holds the store, leaves last."""
        if self.size > 1:
            with contextlib.suppress(JobError):  # all is done: nobody is missed any more
                with peers():
                    gone = int(self._store.add("gone", 1))
                if self.rank == 0 and gone < self.size:
                    self._await(lambda: int(self._store.add("gone", 0)) >= self.size, PART_SECONDS)


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """A collective: what goes wrong in it means that a peer is gone."""
    try:
        with waiting():
            yield
    except RuntimeError as error:
        if memory.ran_out(error):
            raise
        said = SOURCE_LINE.sub("", str(error).splitlines()[0]).partition(" This is typically caused by")[0]
        raise JobError(Reason.PEER_LOST, f"another worker went away or did not answer in time: {said[:300]}") from error


def open_ranks(info: RankInfo, world: World, precision: str, stop: Callable[[], bool] = lambda: False) -> Ranks:
    """Meet and join."""
    return join(meet(info, world, stop), world, precision)


def meet(info: RankInfo, world: World, stop: Callable[[], bool] = lambda: False) -> Ranks:
    """The ranks with their store, which suffices to tell each other of trouble: rank 0 listens at
    master_address:master_port. Collective.
    """
    ranks = Ranks(info, torch.device("cpu"), stop=stop)
    if info.size > 1:
        board = _meet(
            ranks, world
        ).clone()  # a connection of its own: the board's thread and a wait never block each other
        ranks._board, ranks._timeout = FailureBoard(board, info.rank, info.size), world.timeout_seconds
    return ranks


def join(ranks: Ranks, world: World, precision: str) -> Ranks:
    """Take the device, and join the process group of those who met. Collective."""
    ranks.device = _device(world, ranks.local_rank)
    ranks.precision = _precision(precision, ranks.device)
    if world.threads_per_process:
        torch.set_num_threads(world.threads_per_process)
    if ranks.size > 1:
        backend = "nccl" if ranks.device.type == "cuda" else "gloo"
        if backend == "nccl":
            os.environ.setdefault(
                "TORCH_NCCL_BLOCKING_WAIT", "1"
            )  # a lost peer is an error here, not an abort by a watchdog
        if world.workers == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # works where the host's own name does not resolve
        ranks._await_all("device")  # one that has none is heard of before the group waits for it
        with peers():
            dist.init_process_group(
                backend,
                store=ranks._store,
                rank=ranks.rank,
                world_size=ranks.size,
                timeout=timedelta(seconds=world.timeout_seconds),
            )
    return ranks


def _meet(ranks: Ranks, world: World) -> Any:
    """The store that all ranks share, once all of them are there; a signal is heeded while waiting."""
    first = ranks.rank == 0
    found: list[Any] = []

    def connect() -> bool:
        try:
            address = (
                "localhost" if first else world.master_address
            )  # the server listens everywhere; its own name may not resolve yet
            found.append(
                dist.TCPStore(
                    address,
                    world.master_port,
                    ranks.size,
                    is_master=first,
                    timeout=timedelta(seconds=5),
                    wait_for_workers=False,
                )
            )
        except RuntimeError:
            if first:
                raise
            return False
        return True

    ranks._await(connect, RENDEZVOUS_SECONDS)
    ranks._store = found[0]
    ranks._store.set_timeout(timedelta(seconds=world.timeout_seconds))
    ranks._await_all("here")
    return ranks._store


def _device(world: World, local_rank: int) -> torch.device:
    if world.device == "cpu" or (world.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        hint = "Ask for one in limits, as nvidia.com/gpu: 1, and use an image with CUDA."
        raise JobError(
            Reason.INVALID_CONFIG, "no CUDA device can be used here", field="spec.workers.resources", hint=hint
        )
    if local_rank >= torch.cuda.device_count():
        raise JobError(
            Reason.INVALID_CONFIG,
            f"process {local_rank} of this worker has no CUDA device of its own",
            field="spec.workers.processesPerWorker",
            hint=f"This worker has {torch.cuda.device_count()} devices; ask for more or lower processesPerWorker.",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _precision(wanted: str, device: torch.device) -> str:
    """auto: bf16 where an accelerator has it; on CPUs fp32, since few have fast bf16."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


class Gradients(Protocol):
    """How a step's gradients are made and come together: begin, backward for each micro-batch, finish."""

    model: Any  # what the forward pass calls

    def begin(self) -> None:
        """Forget the last step's gradients."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's gradient of the SUM of losses."""

    def finish(self, count: float) -> float:
        """Sum over ranks, divide by the global count; the norm of the result. Collective."""

    def clip(self, factor: float) -> None:
        """Scale the gradients."""


class FlatGradients:
    """All gradients in one flat buffer, of which each parameter's is a view: one reduction, one norm, one scale."""

    def __init__(self, model: Any, ranks: Ranks) -> None:
        self.model, self._ranks = model, ranks
        trained = [p for p in model.parameters() if p.requires_grad]
        assert len({p.dtype for p in trained}) == 1, "one dtype"
        self._flat = torch.zeros(sum(p.numel() for p in trained), dtype=trained[0].dtype, device=trained[0].device)
        for parameter, view in zip(trained, self._flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = view.view_as(parameter)

    def begin(self) -> None:
        """Zero in place: the views stay."""
        self._flat.zero_()

    def backward(self, loss: torch.Tensor) -> None:
        """Autograd adds into the views."""
        loss.backward()

    def finish(self, count: float) -> float:
        """Sum over ranks in fixed buckets, then one division."""
        self._ranks.sum_tensor(self._flat)
        self._flat.div_(count)
        return float(torch.linalg.vector_norm(self._flat))

    def clip(self, factor: float) -> None:
        """Scale all."""
        self._flat.mul_(factor)


def gradients_for(model: Any, ranks: Ranks) -> Gradients:
    """The way that suits the device."""
    if ranks.device.type == "cuda":
        from finetune_trainer.distributed.ddp import AcceleratedGradients

        return AcceleratedGradients(model, ranks)
    return FlatGradients(model, ranks)


def same_everywhere(model: Any, ranks: Ranks) -> None:
    """Every rank starts from the same weights, or there is no sense in going on. Collective."""
    total = float(sum(p.detach().double().sum() for p in model.parameters()))
    mean = ranks.sum([total])[0] / ranks.size
    assert abs(mean - total) <= 1e-9 * max(1.0, abs(total)), (
        f"rank {ranks.rank} starts from other weights than its peers"
    )
