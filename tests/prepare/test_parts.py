"""What is kept of the parts, and what happens when it is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.storage import location
from finetune_trainer.storage.file import FileStore
from finetune_trainer.stream.parts import PARTS_KEY, load_parts
from finetune_trainer.stream.profile import PROFILE_KEY, Profile
from prepare.drawn import HELD, config, mails, rows_of
from support.rows import write


def test_a_job_without_parts_keeps_its_digest_and_folds_change_it(folder: Path, run: Any) -> None:
    write(folder / "data", "a.jsonl", mails())
    digests = []
    for n, evaluation in enumerate([{}, {"folds": {"count": 3}}, {"folds": {"count": 4}}]):
        job = config(folder, evaluation=evaluation)
        job = job.model_copy(update={"output": job.output.model_copy(update={"uri": f"{folder.as_uri()}/{n}"})})
        profile = run(job)
        assert (folder / str(n) / PARTS_KEY).exists() == (profile.parts is not None) == (n > 0)
        digests.append(profile.digest)
    assert len(set(digests)) == 3


@pytest.fixture
def prepared(folder: Path, run: Any) -> tuple[RunConfig, Profile]:
    write(folder / "data", "a.jsonl", mails())
    job = config(folder, **HELD)
    return job, run(job)


def test_parts_that_are_gone_are_made_anew_and_never_guessed(
    folder: Path, run: Any, prepared: tuple[RunConfig, Profile], monkeypatch: Any
) -> None:
    job, profile = prepared
    monkeypatch.setattr("finetune_trainer.stream.parts._loaded", {})
    for spoil, says in (
        (lambda path: path.write_bytes(b"x"), "is not what the job wrote there"),
        (lambda path: path.unlink(), "is gone"),
    ):
        spoil(folder / "out" / PARTS_KEY)
        with pytest.raises(JobError, match=says) as caught:
            rows_of(job, "train")
        assert caught.value.reason is Reason.DATA_CHANGED
        assert caught.value.hint
    again = run(job)
    assert (again.digest, again.parts) == (profile.digest, profile.parts)
    assert len(rows_of(job, "train")) == profile.data.train_rows


def test_a_profile_of_an_earlier_version_is_made_anew_unless_checkpoints_hang_on_it(
    folder: Path, run: Any, prepared: tuple[RunConfig, Profile]
) -> None:
    job, profile = prepared
    stored = json.loads((folder / "out" / PROFILE_KEY).read_text())
    earlier = json.dumps({name: value for name, value in stored.items() if name != "parts"} | {"digest": "0" * 64})
    (folder / "out" / PROFILE_KEY).write_text(earlier)
    assert run(job).parts == profile.parts
    (folder / "out" / PROFILE_KEY).write_text(earlier)
    (folder / "out/ckpt/1/10").mkdir(parents=True)
    (folder / "out/ckpt/1/10/MANIFEST.json").write_text("{}")
    error = run.refused(job)
    assert error.reason is Reason.CHECKPOINT_MISMATCH
    assert "prepared by an earlier version, which held out other rows" in error.message


def test_parts_are_read_once_a_process(folder: Path, prepared: tuple[RunConfig, Profile], monkeypatch: Any) -> None:
    job, profile = prepared
    monkeypatch.setattr("finetune_trainer.stream.parts._loaded", {})
    read: list[str] = []
    get = FileStore.get
    monkeypatch.setattr(FileStore, "get", lambda self, key, **k: read.append(key) or get(self, key, **k))
    for split in ("train", "validation", "test", "train"):
        rows_of(job, split)
    assert sum(key.endswith(PARTS_KEY) for key in read) == 1
    parts = load_parts(location(job.output.uri, job.storage), profile.parts or "")
    assert (parts.dtype, parts.nbytes) == (np.uint8, 220)
    with pytest.raises(ValueError, match="read-only"):
        parts[0] = 1
