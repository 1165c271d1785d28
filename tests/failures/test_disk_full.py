"""A full disk is DiskFull with the folder named, whichever library says it; never an error of the model, the data, or
ours.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from finetune_api.exits import EXITS, JobError, Reason
from finetune_api.report import Outcome
from finetune_api.run import RunConfig
from finetune_trainer import prepare
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch import launcher
from finetune_trainer.launch.worker_end import read_end
from support.jobs import job_config
from support.models import mails, write_jsonl

DEVICE = Path("/dev/full")
"""Every write to it says that no space is left."""


def by_open(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"x" * 100_000)


def by_safetensors(path: Path) -> None:
    folder = path.parent / "full"
    folder.mkdir()
    raise safetensors.SafetensorError(
        f"Error while serializing: I/O error: No space left on device (os error 28) {folder}"
    )


def by_torch(path: Path) -> None:
    torch.save({"a": torch.zeros(100_000)}, path)


def by_sqlite(path: Path) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def by_a_cause(path: Path) -> None:
    try:
        os.write(os.open(path, os.O_WRONLY), b"x")
    except OSError as error:
        raise ValueError("the shard cannot be written") from error


@pytest.mark.parametrize("write", [by_open, by_safetensors, by_torch, by_sqlite, by_a_cause])
def test_whichever_library_says_it(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.symlink_to(DEVICE)
    with pytest.raises(Exception) as caught:
        write(path)
    problem = problem_for(caught.value, 1, [str(tmp_path)])
    assert problem.reason is Reason.DISK_FULL
    assert "no space is left in /" in problem.message
    assert "scratchSize" in problem.hint


def test_the_folder_of_the_file_that_the_error_names_is_told() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/scratch/cache/block-1")
    assert "no space is left in /scratch/cache" in problem_for(error, 0, ["/"]).message


def test_an_error_that_only_happened_beside_is_not_taken_for_it() -> None:
    assert problem_for(ValueError("7"), 0, ["/"]).reason is Reason.INTERNAL_ERROR
    assert problem_for(JobError(Reason.FENCED, "No space left on device"), 0).reason is Reason.FENCED


def full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def config(bert: Path, folder: Path) -> RunConfig:
    write_jsonl(folder / "data" / "train.jsonl", mails(40, seed=1))
    return job_config(folder, model={"uri": bert.as_uri()}, data={"train": {"uri": f"{folder.as_uri()}/data/*"}})


def said(folder: Path) -> Outcome:
    return Outcome.model_validate_json((folder / "termination").read_text())


def test_the_prepare_step_says_it(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.command.prepare", full)
    assert prepare.main(config(bert, tmp_path)) == EXITS[Reason.DISK_FULL].code
    problem = said(tmp_path).problem
    assert problem is not None
    assert problem.reason is Reason.DISK_FULL


def test_a_launcher_that_cannot_make_its_folder_says_it(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.tempfile, "mkdtemp", full)
    monkeypatch.setattr(launcher, "LauncherSignals", lambda: None)
    assert launcher.launch(config(bert, tmp_path)) == EXITS[Reason.DISK_FULL].code
    problem = said(tmp_path).problem
    assert problem is not None
    assert problem.reason is Reason.DISK_FULL


def test_a_worker_that_could_not_leave_word_is_known_by_its_exit_code(tmp_path: Path) -> None:
    end = read_end(tmp_path, 1, EXITS[Reason.DISK_FULL].code or 0, by_us=False, told=False)
    assert end.problem is not None
    assert (end.code, end.problem.reason, end.problem.rank) == (34, Reason.DISK_FULL, 1)
