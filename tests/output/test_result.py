"""A job is complete if and only if result.json is there, its own, and all its files are: committed last, told again,
never redone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_trainer.output import commit, completed
from finetune_trainer.output.commit import NAME
from finetune_trainer.storage import Location, location
from output.cases import classification
from support.checkpoints import config, faulty, own
from support.s3 import s3, s3_credentials

__all__ = ["s3", "s3_credentials"]
REPORT = classification().report


def unchallenged() -> None:
    """No later attempt."""


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Location, RunConfig]:
    if request.param == "file":
        settings = config(f"file://{tmp_path}/out")
    else:
        server = request.getfixturevalue("s3")
        request.getfixturevalue("s3_credentials")
        settings = config(f"s3://{server.bucket()}/out", access=server.access)
    out = location(settings.output.uri, settings.storage)
    own(out)
    for key in ("ckpt/1/10/MANIFEST.json", "prepare/profile.json", "generations/1.json"):
        out.put(key, b"{}")
    return out, settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    (folder / "tensorboard").mkdir(parents=True)
    for name, size in (
        ("model.safetensors", 70_000),
        ("README.md", 10),
        ("report.html", 20),
        ("tensorboard/events", 30),
    ):
        (folder / name).write_bytes(bytes([size % 251]) * size)
    return folder


def test_a_commit_is_found_again_with_its_report(place: tuple[Location, RunConfig], folder: Path) -> None:
    out, settings = place
    assert completed(out, settings) is None
    output = commit(out, folder, settings, REPORT, unchallenged)
    assert (output.uri, output.bytes, output.report) == (out.uri(), 70_060, out.uri("report.html"))
    found = completed(out, settings)
    assert found.output == output
    assert found.report == REPORT.model_copy(update={"stage": Stage.FINISHED, "output": output})
    listed = json.loads(out.get(NAME))["files"]
    assert set(listed) == {"model.safetensors", "README.md", "report.html", "tensorboard/events"}
    for name, file in listed.items():
        data = out.get(name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])


def test_result_json_is_the_last_thing_written_and_a_kill_before_it_leaves_no_result(
    place: tuple[Location, RunConfig], folder: Path
) -> None:
    out, settings = place
    order: list[str] = []

    def die_before_the_marker(operation: str, key: str, done: bool) -> None:
        if operation == "put":
            if key.endswith(NAME):
                raise RuntimeError("killed")
            order.append(key)

    with pytest.raises(RuntimeError):
        commit(faulty(out, die_before_the_marker), folder, settings, REPORT, unchallenged)
    assert len(order) == 8
    assert completed(out, settings) is None
    commit(out, folder, settings, REPORT, unchallenged)
    assert completed(out, settings) is not None


def test_another_jobs_result_is_not_ours_and_its_files_go(place: tuple[Location, RunConfig], folder: Path) -> None:
    out, settings = place
    other = config(settings.output.uri, job="uid-2", access=settings.storage)
    (folder / "merged").mkdir()
    (folder / "merged" / "model.safetensors").write_bytes(b"old")
    commit(out, folder, other, REPORT, unchallenged)
    assert completed(out, settings) is None
    (folder / "merged" / "model.safetensors").unlink()
    commit(out, folder, settings, REPORT, unchallenged)
    assert completed(out, settings) is not None
    assert completed(out, other) is None
    assert out.find("merged/model.safetensors") is None
    assert out.find("ckpt/1/10/MANIFEST.json") is not None


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"jobId": "uid-1"}'])
def test_an_unreadable_marker_is_no_result_and_is_replaced(
    place: tuple[Location, RunConfig], folder: Path, torn: bytes
) -> None:
    out, settings = place
    out.put(NAME, torn)
    assert completed(out, settings) is None
    commit(out, folder, settings, REPORT, unchallenged)
    assert completed(out, settings) is not None


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_result_with_files_missing_or_cut_is_made_again(
    place: tuple[Location, RunConfig], folder: Path, damage: str
) -> None:
    out, settings = place
    commit(out, folder, settings, REPORT, unchallenged)
    if damage == "missing":
        out.delete(["model.safetensors"])
    else:
        out.put("model.safetensors", b"cut")
    assert completed(out, settings) is None
    commit(out, folder, settings, REPORT, unchallenged)
    assert completed(out, settings) is not None


def test_of_two_attempts_that_commit_at_once_one_is_fenced(place: tuple[Location, RunConfig], folder: Path) -> None:
    out, settings = place

    def other_is_faster(operation: str, key: str, done: bool) -> None:
        if operation == "put" and key.endswith(NAME) and not done:
            commit(out, folder, settings, REPORT, unchallenged)

    with pytest.raises(JobError) as caught:
        commit(faulty(out, other_is_faster), folder, settings, REPORT, unchallenged)
    assert caught.value.reason is Reason.FENCED
    assert completed(out, settings) is not None
