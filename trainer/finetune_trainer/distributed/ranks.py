"""The ranks' collectives: sums of numbers and of tensors, in an order that never depends on the step (I1, I3).

No collective is begun before a rank's own part of a step is done, and none is waited for without looking whether a peer
has failed. One that outlasts its time-out ends a rank with PeerLost.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from finetune_api.exits import JobError, Reason
from finetune_trainer.distributed.peers import POLL_SECONDS, Peers, peer_errors
from finetune_trainer.distributed.rank_info import RankInfo

BUCKET = 4 * 1024 * 1024
"""Elements reduced at once; fixed, for the order of summation goes with it."""
SPIN_SECONDS = 0.0002
"""Between two looks at a device's collective, which cannot be waited for with a limit."""


class Ranks:
    """The process group, or a lone process; the device and precision that this rank computes with."""

    def __init__(
        self, peers: Peers, device: torch.device, *, precision: str = "fp32", timeout_seconds: float = math.inf
    ) -> None:
        self.peers = peers
        self.rank, self.size, self.local_rank = peers.rank, peers.size, peers.local_rank
        self.device, self.precision = device, precision
        self._timeout = timeout_seconds

    @classmethod
    def alone(cls) -> Ranks:
        """A lone process on the CPU."""
        return cls(Peers(RankInfo()), torch.device("cpu"))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sums over ranks, in float64; the same bits on every rank. Collective."""
        if self.size == 1:
            return [float(v) for v in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._reduce(total)
        return total.tolist()

    def sum_tensor(self, tensor: torch.Tensor) -> None:
        """Add up in place over ranks, in buckets of fixed size. Collective."""
        if self.size > 1:
            for bucket in tensor.split(BUCKET):
                self._reduce(bucket)

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes (JSON), on every rank. Collective."""
        return self.peers.from_first(make)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the forward pass computes in."""
        return (
            torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        )

    def _reduce(self, tensor: torch.Tensor) -> None:
        """Add up in place over ranks. A peer that failed never comes: its problem ends the wait, as PeerFailed."""
        self.peers.raise_if_failed()
        with peer_errors():
            work = dist.all_reduce(tensor, async_op=True)
            deadline = time.monotonic() + self._timeout
            while not work.is_completed():
                self.peers.raise_if_failed()
                if time.monotonic() > deadline:
                    raise JobError(Reason.PEER_LOST, f"the other workers did not answer for {self._timeout:.0f} s")
                if self.device.type == "cuda":
                    time.sleep(SPIN_SECONDS)
                    continue
                with contextlib.suppress(RuntimeError):  # not yet; work that failed is completed, and raises below
                    work.wait(timedelta(seconds=POLL_SECONDS))
            work.wait()


def check_same_weights(model: Any, ranks: Ranks) -> None:
    """Every rank starts from the same weights, or there is no sense in going on. Collective."""
    total = float(sum(p.detach().double().sum() for p in model.parameters()))
    mean = ranks.sum([total])[0] / ranks.size
    assert abs(mean - total) <= 1e-9 * max(1.0, abs(total)), (
        f"rank {ranks.rank} starts from other weights than its peers"
    )
