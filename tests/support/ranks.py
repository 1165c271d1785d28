"""Run a function as the ranks of a real gloo process group, in forked processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

from finetune_api.run import World


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def run_ranks(
    size: int, function: Callable[..., Any], *args: Any, timeout: float = 60.0, group_timeout: float = 20.0
) -> list[Any]:
    """What function(ranks, *args) returns on each rank, in order; an exception's text where one was raised, as
    ("raised", type name, text).
    """
    fork = multiprocessing.get_context("fork")
    world = World(
        processes_per_worker=size,
        device="cpu",
        threads_per_process=1,
        master_address="localhost",
        master_port=free_port(),
        timeout_seconds=group_timeout,
    )
    pipes, processes = [], []
    for rank in range(size):
        receive, send = fork.Pipe(duplex=False)
        process = fork.Process(target=_rank, args=(function, args, world, rank, size, send))
        process.start()
        send.close()
        pipes.append(receive)
        processes.append(process)
    results = []
    for receive in pipes:
        assert receive.poll(timeout), "a rank did not answer"
        try:
            results.append(pickle.loads(receive.recv_bytes()))
        except EOFError:
            results.append(("raised", "EOFError", "the rank died"))
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.kill()
    return results


def _rank(function: Callable[..., Any], args: tuple[Any, ...], world: World, rank: int, size: int, send: Any) -> None:
    import torch

    from finetune_trainer.distributed.rank_info import RankInfo
    from finetune_trainer.distributed.rendezvous import join, meet

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # as the launcher does; accelerate warns where it is not set
    try:
        ranks = join(meet(RankInfo(rank, size, rank), world), world, "fp32")
        result = function(ranks, *args)
    except BaseException as error:
        result = ("raised", type(error).__name__, str(error) + "\n" + traceback.format_exc())
    send.send_bytes(pickle.dumps(result))  # plain: torch would pass shared memory, which dies with the sender
    send.close()
    os._exit(0)
