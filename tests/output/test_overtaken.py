"""An attempt that was overtaken wakes at any point of its commit: the later one's result stays whole, and no files
mix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import generations
from finetune_trainer.output import commit, completed
from finetune_trainer.output.commit import NAME
from finetune_trainer.storage import Location, location
from output.cases import classification
from support.checkpoints import config, own
from support.s3 import s3, s3_credentials

__all__ = ["s3", "s3_credentials"]
REPORT = classification().report
FILES = ("README.md", "model.safetensors")


class Watched:
    """A store that calls `before(n)` before its n-th operation."""

    def __init__(self, inner: Any, before: Callable[[int], None]) -> None:
        self._inner, self._before, self._count = inner, before, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("list", "head", "get", "put", "put_file", "delete"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._before(self._count)
            self._count += 1
            return list(found(*args, **kwargs)) if name == "list" else found(*args, **kwargs)

        return call


@dataclasses.dataclass
class Attempt:
    """An attempt that has exported its files and claimed the generation of its number."""

    number: int
    out: Location
    settings: RunConfig
    folder: Path

    def claim(self) -> None:
        assert generations.put(
            self.out, generations.GenerationRecord(self.number, self.number, None, f"w{self.number}"), "", None
        )

    def commit(self, before: Callable[[int], None] = lambda n: None) -> None:
        out = Location(Watched(self.out.store, before), self.out.prefix)  # type: ignore[arg-type]
        mine = self.settings.model_copy(update={"attempt": self.number})
        commit(out, self.folder, mine, REPORT, lambda: generations.check_newest(out, self.number, f"w{self.number}"))


@pytest.fixture(autouse=True)
def one_upload_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["finetune_trainer.output.commit"], "UPLOADS", 1)


def attempts(out: Location, settings: RunConfig, folder: Path, state: str) -> list[Attempt]:
    """Three attempts on an empty output, but for what the first, which is over, left there."""
    own(out)
    made = []
    for number in (1, 2, 3):
        files = folder / str(number)
        files.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (files / name).write_text(f"{name} of attempt {number}")
        made.append(Attempt(number, out, settings, files))
    made[0].claim()
    if state != "empty":
        made[0].commit()
        out.delete([NAME if state == "broken off" else FILES[1]])
    made[1].claim()
    return made


def check(out: Location, settings: RunConfig) -> int:
    """The attempt whose result is there, whole and unmixed."""
    assert completed(out, settings) is not None
    number = int(json.loads(out.get(NAME))["attempt"])
    for name in FILES:
        assert out.get(name).decode() == f"{name} of attempt {number}"
    return number


def wake(stale: Attempt, at: int, meanwhile: Callable[[], None]) -> bool:
    """Commit, with something done by others before operation `at`. Whether it came so far."""
    reached, error = False, None

    def before(n: int) -> None:
        nonlocal reached
        if n == at and not reached:
            reached = True
            meanwhile()

    try:
        stale.commit(before)
    except JobError as caught:
        error = caught
    assert error is None or error.reason is Reason.FENCED
    return reached


STATES = pytest.mark.parametrize("state", ["empty", "broken off", "damaged"])


@STATES
def test_whenever_a_stale_attempt_wakes_the_later_result_stays(tmp_path: Path, state: str) -> None:
    at, reached = 0, True
    while reached:
        settings = config(f"file://{tmp_path}/{at}/out")
        out = location(settings.output.uri, settings.storage)
        _, stale, later = attempts(out, settings, tmp_path / str(at), state)

        def overtake(later: Attempt = later) -> None:
            later.claim()
            later.commit()

        reached = wake(stale, at, overtake)
        assert check(out, settings) == (3 if reached else 2)
        at += 1
    assert at > 15


@pytest.mark.parametrize("at", [2, 6, 9, 13, 15])
def test_on_s3_too(s3: Any, s3_credentials: None, tmp_path: Path, at: int) -> None:
    settings = config(f"s3://{s3.bucket()}/out", access=s3.access)
    out = location(settings.output.uri, settings.storage)
    _, stale, later = attempts(out, settings, tmp_path, "broken off")

    def overtake() -> None:
        later.claim()
        later.commit()

    assert wake(stale, at, overtake)
    assert check(out, settings) == 3


@STATES
@pytest.mark.parametrize("then", [0, 3, 5, 8, 11, 14, 17])
def test_a_stale_attempt_that_wakes_in_the_midst_of_the_later_commit_mixes_nothing(
    tmp_path: Path, state: str, then: int
) -> None:
    """It sleeps before each of its operations in turn, and goes on before operation `then` of the later attempt."""
    for at in range(0, 20, 2):
        settings = config(f"file://{tmp_path}/{at}/out")
        out = location(settings.output.uri, settings.storage)
        _, stale, later = attempts(out, settings, tmp_path / str(at), state)
        asleep, go_on = threading.Event(), threading.Event()

        def sleep(n: int, at: int = at, asleep: Any = asleep, go_on: Any = go_on) -> None:
            if n == at:
                asleep.set()
                go_on.wait(20)

        def run(stale: Attempt = stale, sleep: Any = sleep, asleep: Any = asleep) -> None:
            with contextlib.suppress(JobError):
                stale.commit(sleep)
            asleep.set()  # it had fewer operations

        thread = threading.Thread(target=run)
        thread.start()
        assert asleep.wait(20)
        later.claim()

        def let_it_finish(n: int, thread: Any = thread, go_on: Any = go_on) -> None:
            if n == then:
                go_on.set()
                thread.join(20)

        later.commit(let_it_finish)
        go_on.set()
        thread.join(20)
        check(out, settings)


def test_a_complete_result_is_left_alone(tmp_path: Path) -> None:
    settings = config(f"file://{tmp_path}/out")
    out = location(settings.output.uri, settings.storage)
    _, earlier, later = attempts(out, settings, tmp_path, "empty")
    earlier.commit()
    later.claim()
    later.commit()
    assert check(out, settings) == 2


def test_an_attempt_of_a_job_that_lost_its_output_is_fenced(tmp_path: Path) -> None:
    """The new owner counts its generations from 1 again."""
    settings = config(f"file://{tmp_path}/out")
    out = location(settings.output.uri, settings.storage)
    _, stale, _ = attempts(out, settings, tmp_path, "empty")
    out.delete([info.key for info in out.list("generations/")])
    assert generations.put(out, generations.GenerationRecord(1, 1, None, "other"), "", None)
    with pytest.raises(JobError) as caught:
        stale.commit()
    assert caught.value.reason is Reason.FENCED
    assert out.find(FILES[0]) is None
