"""What the launcher does before it forks its workers leaves no thread and no connection behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune_api.run import HubAccess, World
from support.hub import Hub, hub
from support.jobs import job_config
from support.launch import start
from support.models import mails, write_jsonl
from support.s3 import S3Server, s3, s3_credentials

__all__ = ["hub", "s3", "s3_credentials"]

BEFORE_THE_FORK = """
import json, os, sys, threading
from finetune_api.base import parse
from finetune_api.run import RunConfig
from finetune_trainer.launch import launcher
from support.sockets import connections

def instead(config, first_rank, model, folder, stop, started):
    read, write = os.pipe()
    found = {"threads": [thread.name for thread in threading.enumerate()]}
    if os.fork() == 0:
        os.write(write, json.dumps(sorted(c for port in PORTS for c in connections(port))).encode())
        os._exit(0)
    os.wait()
    found["inherited"] = json.loads(os.read(read, 10_000))
    print(json.dumps(found), flush=True)
    os._exit(0)

config, PORTS = json.loads(sys.stdin.read())
launcher.run_workers = instead
launcher.launch(parse(RunConfig, config, local=True))
"""


def test_the_launcher_is_alone_when_it_forks(
    bert: Path, tmp_path: Path, s3: S3Server, hub: Hub, s3_credentials: None
) -> None:
    """It has read its output on S3, and brought the model from the hub."""
    write_jsonl(tmp_path / "data" / "train.jsonl", mails(60, seed=1))
    bucket = s3.bucket()
    hub.add("models", "me/bert", bert)
    spec: dict[str, Any] = {"model": {"uri": "hf://me/bert"}, "output": {"uri": f"s3://{bucket}/out"}}
    config = job_config(
        tmp_path, world=World(device="cpu"), storage=s3.access, hub=HubAccess(endpoint=hub.endpoint), **spec
    )
    assert start("prepare", config, dict(os.environ)).wait() == 0
    ports = [urlsplit(s3.endpoint).port, hub.server_port]
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_THE_FORK],
        input=json.dumps([config.to_json(), ports]),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"threads": ["MainThread"], "inherited": []}
