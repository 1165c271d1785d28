"""I7: a secret from a plainly named variable is in no log line, traceback, termination message or report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.exits import EXITS, Reason
from finetune_api.run import World
from support.jobs import job_config
from support.launch import start
from support.models import mails, write_jsonl

CANARY = "canary-7f3a91"
SECRET = {"MAIL_NOTE": CANARY + "\n", "FINETUNE_SECRET_ENV": "OTHER,MAIL_NOTE"}

WAYS = """
import logging, multiprocessing, os, sys, threading, warnings
from finetune_trainer.report.logs import set_up

library = logging.getLogger("library")
library.propagate = False
set_up()
library.addHandler(logging.StreamHandler())
note = os.environ["MAIL_NOTE"].strip()

def worker():
    logging.getLogger("finetune_trainer").error("forked %s", note)
    raise ValueError("worker " + note)

logging.getLogger("finetune_trainer").info("told %s", note)
library.warning("library %s", note)
warnings.warn("warned " + note)
try:
    raise ValueError("caught " + note)
except ValueError:
    logging.getLogger("finetune_trainer").exception("failed")
print("printed", note, file=sys.stderr)
process = multiprocessing.get_context("fork").Process(target=worker)
process.start()
process.join()
thread = threading.Thread(target=lambda: [][note])
thread.start()
thread.join()
raise RuntimeError("uncaught " + note)
"""


def test_no_way_to_the_log_shows_it() -> None:
    done = subprocess.run([sys.executable, "-c", WAYS], env=os.environ | SECRET, capture_output=True, text=True)
    log = done.stderr + done.stdout
    assert CANARY not in log
    for way in (
        "told",
        "library",
        "warned",
        "ValueError: caught",
        "printed",
        "forked",
        "worker",
        "RuntimeError: uncaught",
    ):
        assert f"{way} [secret]" in log


@pytest.mark.parametrize("step", ["prepare", "launch"])
def test_no_step_of_a_job_shows_it(bert: Path, tmp_path: Path, step: str) -> None:
    """The value stands in a URI, as a signed one would have it, and the step fails over it."""
    write_jsonl(tmp_path / "data" / "train.jsonl", mails(40, seed=1))
    there = {"uri": bert.as_uri()}
    good = job_config(tmp_path, world=World(device="cpu"), model=there)
    gone = {"uri": f"{tmp_path.as_uri()}/{CANARY}/model"}
    if step == "launch":
        assert start("prepare", good).wait() == 0
    bad = job_config(tmp_path, world=World(device="cpu"), model=gone)
    job = start(step, bad, SECRET)
    assert job.wait() == EXITS[Reason.MODEL_NOT_FOUND].code
    words = [job.log, tmp_path / "termination", tmp_path / "reports.jsonl"]
    assert "[secret]" in job.outcome.problem.message
    for path in words:
        assert CANARY not in path.read_text(), path
