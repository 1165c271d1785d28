"""A process that forks writers for the crash tests: importing torch once, so that a hundred kills take seconds.

Each line on stdin is JSON {uri, access, attempt, kill, steps}; the server forks a writer, prints its pid, and prints
its wait status when it has ended. `kill` is the number of the storage operation at which the writer kills itself
with SIGKILL (each write and delete counts twice: before and after), or null for a writer that somebody else kills.
Each acknowledged save is a line in `uri`'s folder of acknowledgements, given as `acks`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import torch

from finetune_api.run import StorageAccess
from finetune_trainer.checkpoint import Checkpointer
from finetune_trainer.storage import location
from finetune_trainer.storage.s3.client import make_client
from support.checkpoints import config, faulty, same, state


def write(order: dict[str, Any]) -> None:
    """What a run does: claim, load, check, then save every other step in the background and every tenth at once."""
    operations = 0

    def count(operation: str, key: str, done: bool) -> None:
        nonlocal operations
        if operation == "get":
            return
        operations += 1
        if operations == order["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = config(
        order["uri"],
        attempt=order["attempt"],
        access=StorageAccess.model_validate(order["access"]),
        checkpoints={"keepLast": 2, "keepBest": True},
    )
    writer = Checkpointer(settings, faulty(location(settings.output.uri, settings.storage), count), 0)
    resume = writer.claim().resume
    step = 0
    if resume is not None:
        found = writer.load(resume)
        assert same(found, state(resume.step)), "the state is not that of its step"
        step = resume.step
    acks = os.open(order["acks"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(order["steps"]):
        step += 1
        wait = step % 3 == 0
        writer.save(state(step), metrics={"macro-f1": (step * 37 % 101) / 101}, wait=wait)
        if wait:
            os.write(acks, f"{step}\n".encode())
    writer.close()


def main() -> None:
    torch.set_num_threads(1)
    make_client(StorageAccess(endpoint="http://127.0.0.1:1"))  # boto3 and its tables, once for all writers
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                write(json.loads(line))
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(3)
            os._exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(status, flush=True)


main()
