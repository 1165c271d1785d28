"""One job owns an output: a second is refused, a take-over leaves nothing of the first, and a crash in between is
mended.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import JobError, Reason
from finetune_trainer.prepare.checks import output_owner
from finetune_trainer.prepare.checks.output_owner import claim_output
from finetune_trainer.storage import Location, location
from support.jobs import job_config
from support.s3 import S3Server


@pytest.fixture(params=["file", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None) -> Location:
    """An empty output prefix."""
    if request.param == "file":
        return location((tmp_path / "out").as_uri(), job_config(tmp_path).storage)
    server: S3Server = request.getfixturevalue("s3")
    return location(f"s3://{server.bucket()}/out", server.access)


def config(job_id: str, *, name: str | None = None, **output: Any) -> Any:
    return job_config(
        Path("/x"), job_id=job_id, name=f"team/{name or job_id}", output={"uri": "file:///x/out"} | output
    )


def keys(out: Location) -> list[str]:
    return [info.key for info in out.list()]


def test_the_first_job_owns_the_output_and_others_are_refused_by_name(out: Location) -> None:
    claim_output(config("one"), out)
    claim_output(config("one"), out)  # again, as every attempt does
    with pytest.raises(JobError, match="belongs to job team/one") as caught:
        claim_output(config("two"), out)
    assert (caught.value.reason, caught.value.field) == (Reason.OUTPUT_IN_USE, "spec.output.uri")
    assert keys(out) == ["job.json"]


def test_a_job_of_another_namespace_is_refused_and_learns_no_name(out: Location) -> None:
    claim_output(config("one", name="secret-plan"), out)
    for name in ("elsewhere/mine", "elsewhere/secret-plan"):  # nor does a namesake take anything over
        stranger = job_config(Path("/x"), job_id="two", name=name, output={"uri": "file:///x/out"})
        with pytest.raises(JobError, match="belongs to a job of another namespace") as caught:
            claim_output(stranger, out)
        assert not re.search("secret-plan|team", str(caught.value))
    assert json.loads(out.find("job.json") or b"")["jobId"] == "one"


def test_a_mended_job_of_the_same_name_takes_over_what_never_trained(out: Location) -> None:
    claim_output(config("one", name="spam"), out)
    out.put("prepare/profile.json", b"{}")
    claim_output(config("two", name="spam"), out)
    assert keys(out) == ["job.json"]
    with pytest.raises(JobError, match="belongs to job team/spam"):
        claim_output(config("three", name="other"), out)


@pytest.mark.parametrize(
    ("left", "says", "hint"),
    [
        (["generations/1.json"], "which had begun to train", r"spec\.output\.overwrite to start over\.$"),
        (
            ["generations/1.json", "ckpt/1/10/MANIFEST.json"],
            "which had begun to train",
            r"the newest checkpoint under \S+/out/ckpt in spec\.checkpoints\.resumeFrom\.$",
        ),
        (["generations/1.json", "result.json"], "which has finished", "if that model may go"),
    ],
)
def test_what_trained_is_never_lost_to_a_job_of_the_same_name(
    out: Location, left: list[str], says: str, hint: str
) -> None:
    claim_output(config("one", name="spam"), out)
    for key in left:
        out.put(key, b'{"generation": 1, "attempt": 1, "resumeFrom": null, "writer": "w", "report": {}}')
    with pytest.raises(JobError, match=says) as caught:
        claim_output(config("two", name="spam"), out)
    assert re.search(hint, caught.value.hint)
    assert keys(out) == sorted(["job.json", *left])


def test_of_jobs_that_start_at_once_one_wins(out: Location) -> None:
    def claim(n: int) -> bool:
        try:
            claim_output(config(f"job-{n}"), out)
        except JobError as error:
            return error.reason != Reason.OUTPUT_IN_USE
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def left_by_an_earlier_job(out: Location) -> None:
    claim_output(config("old"), out)
    for key in (
        "ckpt/1/10/MANIFEST.json",
        "generations/1.json",
        "prepare/profile.json",
        "model.safetensors",
        "README.md",
        "merged/config.json",
        "mine.txt",
    ):
        out.put(key, b"{}")
    files = {name: {"bytes": 2} for name in ("model.safetensors", "README.md", "merged/config.json")}
    out.put("result.json", json.dumps({"jobId": "old", "files": files}).encode())


def test_a_take_over_leaves_nothing_of_the_earlier_job_but_what_was_not_its_own(out: Location) -> None:
    left_by_an_earlier_job(out)
    claim_output(config("new", overwrite=True), out)
    assert keys(out) == ["job.json", "mine.txt"]
    with pytest.raises(JobError, match="belongs to job team/new"):
        claim_output(config("old"), out)
    out.put("ckpt/1/5/MANIFEST.json", b"{}")
    claim_output(config("new", overwrite=True), out)  # a later attempt keeps what is its own
    assert "ckpt/1/5/MANIFEST.json" in keys(out)


def test_a_take_over_that_was_killed_half_way_is_finished(out: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by_an_earlier_job(out)
    with monkeypatch.context() as patch:
        patch.setattr(output_owner, "sweep_output", lambda out: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            claim_output(config("new", overwrite=True), out)
    assert "ckpt/1/10/MANIFEST.json" in keys(out)
    claim_output(config("new", overwrite=True), out)
    assert keys(out) == ["job.json", "mine.txt"]


def test_a_model_that_no_job_wrote_is_not_overwritten(out: Location) -> None:
    out.put("model.safetensors", b"precious")
    with pytest.raises(JobError, match=r"model\.safetensors exists") as caught:
        claim_output(config("one"), out)
    assert caught.value.reason == Reason.OUTPUT_IN_USE
    assert keys(out) == ["model.safetensors"]
    claim_output(config("one", overwrite=True), out)


def test_a_damaged_marker_belongs_to_nobody_known(out: Location) -> None:
    out.put("job.json", b"not json")
    with pytest.raises(JobError, match=r"\(unknown\)"):
        claim_output(config("one"), out)
