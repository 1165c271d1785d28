"""The Outcome: the right exit code, all that is known, never above the kubelet's limit, never a secret."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from finetune_api.exits import BY_CODE, JobError, Reason
from finetune_api.report import TERMINATION_BYTES, Outcome, Report, Stage
from finetune_api.status import Best, Checkpoint, DataProfile, Finding, OutputStatus, Progress, Resolved
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.failures.redact import redact
from finetune_trainer.report.outcome import leave_outcome, outcome_for, write_outcome
from support.checkpoints import config

SETTINGS = config("s3://models/out")
CHECKPOINT = Checkpoint(
    step=40, uri="s3://models/out/ckpt/1/40", bytes=9, digest="ab" * 32, time="2026-01-01T00:00:00Z"
)
SNAPSHOT = Report(
    job_id="uid-1",
    attempt=1,
    sequence=7,
    time=1.0,
    stage=Stage.TRAINING,
    progress=Progress(step=41),
    best=Best(step=40, metric="loss", value=0.5),
    checkpoints=(CHECKPOINT, CHECKPOINT),
    resumed_from_step=20,
    test={"loss": 0.4},
    resolved=Resolved(total_steps=99),
    seconds={"train": 5.0},
    output=OutputStatus(uri="s3://models/out"),
)


def test_a_complete_run_says_everything_and_exits_0() -> None:
    outcome = outcome_for(SETTINGS, None, SNAPSHOT)
    assert (outcome.exit_code, outcome.problem, outcome.step, outcome.resumed_from_step) == (0, None, 41, 20)
    assert (outcome.best, outcome.test, outcome.output, outcome.checkpoint) == (
        SNAPSHOT.best,
        SNAPSHOT.test,
        SNAPSHOT.output,
        CHECKPOINT,
    )
    assert Outcome.model_validate_json(outcome.to_message()) == outcome


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (JobError(Reason.FENCED, "m"), Reason.FENCED),
        (JobError(Reason.INTERRUPTED, "m"), Reason.INTERRUPTED),
        (OSError(errno.ENOSPC, "no space left"), Reason.DISK_FULL),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (KeyError("step"), Reason.INTERNAL_ERROR),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Reason.OUT_OF_MEMORY),
        (RuntimeError("no such thing"), Reason.INTERNAL_ERROR),
        (JobError(Reason.OOM_KILLED, "seen from outside"), Reason.OOM_KILLED),
    ],
)
def test_errors_become_reasons_and_exit_codes_of_the_contract(error: BaseException, reason: Reason) -> None:
    outcome = outcome_for(SETTINGS, error, None, rank=3)
    assert outcome.problem is not None
    assert (outcome.problem.reason, outcome.problem.rank) == (reason, 3)
    expected = Reason.INTERNAL_ERROR if reason is Reason.OOM_KILLED else reason
    assert BY_CODE[outcome.exit_code].reason is expected


def test_an_unexpected_error_names_its_type_and_place() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        problem = problem_for(error)
    assert "JSONDecodeError" in problem.message
    assert "decoder.py:" in problem.message
    assert problem.hint


def raised(call: Callable[[], object]) -> str | None:
    try:
        call()
    except Exception as error:
        return problem_for(error).place
    raise AssertionError


def test_an_unexpected_error_has_the_same_place_whenever_it_happens_there() -> None:
    def first(word: str) -> object:
        return {}[word]

    places = [raised(partial(first, word)) for word in ("a", "b")]
    assert places[0] == places[1]
    assert str(places[0]).startswith("KeyError@")
    assert raised(lambda: int("x")) not in places
    assert raised(lambda: (_ for _ in ()).throw(JobError(Reason.FENCED, "m"))) is None


def test_the_message_is_written_in_place_and_fits_the_kubelets_file(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.write_text("x" * 9000)
    inode = log.stat().st_ino
    findings = tuple(Finding(kind="K" * 128, file="f" * 256, message="m" * 384) for _ in range(5))
    full = SNAPSHOT.model_copy(
        update={
            "data": DataProfile(labels=("ü" * 64,) * 20, findings=findings),
            "seconds": {f"{i}" * 60: 1.0 for i in range(9)},
        }
    )
    settings = config("s3://models/out", reporting={"terminationFile": str(log)})
    outcome = leave_outcome(
        settings, JobError(Reason.INVALID_DATA, "ü" * 3000, hint="h" * 900, field="spec." + "f" * 300), full
    )
    assert log.stat().st_ino == inode
    assert log.stat().st_size <= TERMINATION_BYTES
    back = Outcome.model_validate_json(log.read_text())
    assert (back.exit_code, back.problem.reason) == (21, Reason.INVALID_DATA)
    assert outcome.exit_code == 21


def test_a_place_that_cannot_be_written_does_not_hide_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config("s3://models/out", reporting={"terminationFile": str(tmp_path / "none" / "log")})
    write_outcome(settings, outcome_for(settings, None, None))
    assert len(caplog.messages) == 1
    write_outcome(SETTINGS, outcome_for(SETTINGS, None, None))  # no file asked for


def test_secrets_are_taken_out_of_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "AWS_SECRET_ACCESS_KEY": "canary-one/+=",
        "AWS_SESSION_TOKEN": "canary-two",
        "AWS_ACCESS_KEY_ID": "canary-three",
        "HF_TOKEN": "hf_canaryfour",
        "MY_DB_PASSWORD": "canary-five",
        "INNOCENT": "canary-six",
        "FINETUNE_SECRET_ENV": "INNOCENT, OTHER",
        "OTHER": 'canary "seven"\nline',
        "SHORT_TOKEN": "abc",
        "HARMLESS": "plain-word",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    text = (
        "\n".join(f"{k}={v}" for k, v in values.items())
        + f"{values!r} {json.dumps(values)} canary-one%2F%2B%3D plain-word abc"
    )
    clean = redact(text)
    assert "canary" not in clean
    assert "plain-word abc" in clean
    assert (
        redact("https://user:pa55word@host/x and http://host:80/a@b")
        == "https://[secret]@host/x and http://host:80/a@b"
    )
    assert redact("Authorization: Bearer eyJhbGciOi.J9.x") == "Authorization: Bearer [secret]"


def test_a_secret_in_an_exception_does_not_reach_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary1234")
    for error in (
        RuntimeError("refused hf_canary1234"),
        JobError(Reason.ACCESS_DENIED, "refused hf_canary1234", hint="is hf_canary1234 right?"),
    ):
        assert "canary" not in outcome_for(SETTINGS, error, None).to_message()
