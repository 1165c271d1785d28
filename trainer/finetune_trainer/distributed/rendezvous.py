"""How the processes of a run find each other (meet) and become a process group with their devices (join).

Two steps, so that what goes wrong between them, such as a device that is not there, is reported to all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from finetune_api.run import World
from finetune_trainer.distributed.device import device_for, precision_for
from finetune_trainer.distributed.failure_board import FailureBoard
from finetune_trainer.distributed.peers import RENDEZVOUS_SECONDS, Peers, peer_errors
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.distributed.ranks import Ranks

CONNECT_SECONDS = 5.0


def meet(info: RankInfo, world: World, stop: Callable[[], bool] = lambda: False) -> Peers:
    """All ranks, connected by the store that rank 0 serves at master_address:master_port. Collective.

    A signal to stop ends the wait for the others.
    """
    if info.size == 1:
        return Peers(info, stop=stop)
    store = _connect(info, world, stop)
    store.set_timeout(timedelta(seconds=world.timeout_seconds))
    Peers(info, store, stop=stop).wait_for_all("here")
    # The board has a connection of its own: its thread and a wait never block each other.
    board = FailureBoard(store.clone(), info.rank, info.size)
    return Peers(info, store, board, stop)


def join(peers: Peers, world: World, precision: str) -> Ranks:
    """Take the device, and make the process group of those who met. Collective."""
    device = device_for(world, peers.local_rank)
    if world.threads_per_process:
        torch.set_num_threads(world.threads_per_process)
    if peers.size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        if backend == "nccl":  # a lost peer is an error here, not an abort by a watchdog
            os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        if world.workers == 1:  # works where the host's own name does not resolve
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        peers.wait_for_all("device")  # one that has none is heard of before the group waits for it
        with peer_errors():
            dist.init_process_group(
                backend,
                store=peers.store,
                rank=peers.rank,
                world_size=peers.size,
                timeout=timedelta(seconds=world.timeout_seconds),
            )
    return Ranks(peers, device, precision=precision_for(precision, device), timeout_seconds=world.timeout_seconds)


def _connect(info: RankInfo, world: World, stop: Callable[[], bool]) -> dist.TCPStore:
    """The store: served by rank 0, reached by the others once it is there."""
    first = info.rank == 0
    # The server listens everywhere; its own name may not resolve yet.
    address = "localhost" if first else world.master_address
    found: list[dist.TCPStore] = []

    def connect() -> bool:
        try:
            found.append(
                dist.TCPStore(
                    address,
                    world.master_port,
                    info.size,
                    is_master=first,
                    timeout=timedelta(seconds=CONNECT_SECONDS),
                    wait_for_workers=False,
                )
            )
        except RuntimeError:
            if first:
                raise
            return False
        return True

    Peers(info, stop=stop).wait_until(connect, RENDEZVOUS_SECONDS)
    return found[0]
