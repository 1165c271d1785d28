"""Credentials that worked and no longer do are tried again, read anew; those that were never enough are an error at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import EXITS, JobError, Reason, Retry
from finetune_api.run import HubAccess, StorageAccess
from finetune_trainer.storage import Location, location, trust
from finetune_trainer.storage.s3 import client
from finetune_trainer.stream.sources.hub_store import HubStore
from support.hub import Hub
from support.proxy import Proxy, proxy_before
from support.s3 import S3Server


@dataclass
class Gate:
    """A storage behind a proxy that accepts the keys in `good` only, and refuses what `denied` names to everybody."""

    proxy: Proxy
    bucket: str
    folder: Path
    good: set[str] = field(default_factory=lambda: {"first"})
    denied: str = ""
    refused: int = 0
    code: str = "ExpiredToken"

    @property
    def access(self) -> StorageAccess:
        return StorageAccess(endpoint=self.proxy.endpoint)

    def place(self, patience: float = 20.0) -> Location:
        return location(f"s3://{self.bucket}/x", self.access, patience=patience)

    def rotate(self, key: str) -> None:
        """Write the file that credentials come from, as a rotator does."""
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n"
        (self.folder / "credentials").write_text(text)

    def judge(self, method: str) -> str | None:
        _, path, headers = self.proxy.seen[-1]
        key = headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        if key in self.good and not (self.denied and self.denied in path):
            return None
        self.refused += 1
        return self.code if key not in self.good else "AccessDenied"


@pytest.fixture
def gate(moto: S3Server, s3_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gate]:
    """With one object, x/a; the first key is good."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with proxy_before(moto.endpoint) as proxy:
        found = Gate(proxy, moto.bucket(), tmp_path)
        moto.client.put_object(Bucket=found.bucket, Key="x/a", Body=b"1")
        found.rotate("first")
        proxy.judge = found.judge  # type: ignore[method-assign]
        yield found


def caught_from(act: Callable[[], object]) -> JobError:
    with pytest.raises(JobError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("code", ["ExpiredToken", "AccessDenied", "InvalidToken", "RequestExpired"])
def test_renewed_credentials_are_taken_up_in_mid_run(gate: Gate, code: str) -> None:
    gate.code = code
    place = gate.place()
    assert place.get("a") == b"1"
    gate.good = {"second"}
    gate.rotate("second")
    assert place.get("a") == b"1"
    place.put("b", b"2")
    assert gate.refused


def test_credentials_that_are_renewed_late_are_waited_for(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    place = gate.place()
    assert [info.key for info in place.list()] == ["a"]
    gate.good = {"second"}
    fresh = client.make_client
    made: list[StorageAccess] = []

    def make(access: StorageAccess) -> Any:
        made.append(access)
        if len(made) == 3:
            gate.rotate("second")
        return fresh(access)

    monkeypatch.setattr(client, "make_client", make)
    place.put("b", b"2")
    assert len(made) == 3


def test_credentials_that_lapse_for_good_end_the_attempt_and_not_the_job(gate: Gate) -> None:
    place = gate.place(patience=0.5)
    assert place.get("a") == b"1"
    gate.good = set()
    for act in (
        lambda: place.get("a"),
        lambda: place.head("a"),
        lambda: place.put("b", b""),
        lambda: list(place.list()),
    ):
        error = caught_from(act)
        assert error.reason is Reason.CREDENTIALS_EXPIRED
        assert EXITS[error.reason].retry is Retry.BUDGET
        assert place.uri() in error.message


@pytest.mark.parametrize("code", ["ExpiredToken", "AccessDenied"])
def test_a_refusal_at_the_start_is_told_at_once(gate: Gate, code: str) -> None:
    gate.code, gate.good = code, set()
    error = caught_from(lambda: gate.place().get("a"))
    assert error.reason is Reason.ACCESS_DENIED
    assert EXITS[error.reason].retry is Retry.NEVER
    assert gate.refused == 1


def test_what_alone_is_refused_is_told_at_once_however_much_else_was_granted(gate: Gate) -> None:
    place = gate.place()
    assert place.get("a") == b"1"
    gate.denied = "secret"
    assert caught_from(lambda: place.get("secret/b")).reason is Reason.ACCESS_DENIED
    assert gate.refused == 2  # once more, since the credentials might have been renewed in between


def test_a_later_process_of_the_job_knows_that_there_was_access(gate: Gate) -> None:
    trust(gate.access)
    gate.good = set()
    assert caught_from(lambda: gate.place(patience=0.3).get("a")).reason is Reason.CREDENTIALS_EXPIRED
    gate.good = {"second"}
    gate.rotate("second")
    assert gate.place().get("a") == b"1"


def test_a_provider_that_fails_in_mid_run_is_asked_again(gate: Gate) -> None:
    assert gate.place().get("a") == b"1"
    (gate.folder / "credentials").unlink()
    client.renew_client(gate.access)
    assert caught_from(lambda: gate.place(patience=0.3).get("a")).reason is Reason.CREDENTIALS_EXPIRED
    gate.rotate("first")
    assert gate.place().get("a") == b"1"


def test_a_token_that_the_hub_no_longer_accepts(hub: Hub) -> None:
    commit = hub.add("datasets", "me/mails", {"a": b"1"})
    at_start = HubStore("hf://me/mails", commit, HubAccess(endpoint=hub.endpoint))
    in_mid_run = HubStore("hf://me/mails", commit, HubAccess(endpoint=hub.endpoint), granted=True)
    assert in_mid_run.get("a") == b"1"
    for status in (401, 403):
        hub.failing = {"/a": status}
        assert caught_from(lambda: in_mid_run.get("a")).reason is Reason.CREDENTIALS_EXPIRED
    assert caught_from(lambda: at_start.get("a")).reason is Reason.ACCESS_DENIED
