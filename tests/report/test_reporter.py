"""Reports reach a real HTTPS server when they can, and disturb nobody when they cannot."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.report import Problem, Report, Stage
from finetune_api.status import Best, Checkpoint, DataProfile, Finding, Progress
from finetune_trainer.report import reporter as module
from finetune_trainer.report.outcome import load_snapshot
from finetune_trainer.report.reporter import Reporter
from report.conftest import ReportServer
from support.checkpoints import config

Settings = Callable[..., Any]


@pytest.fixture
def reporter(settings: Settings) -> Iterator[Reporter]:
    reporter = Reporter(settings())
    yield reporter
    reporter.close(final=False)


def test_every_report_is_a_full_snapshot_with_a_rising_sequence(reporter: Reporter, server: ReportServer) -> None:
    reporter.update(stage=Stage.TRAINING, progress=Progress(step=3, total_steps=10))
    server.wait(lambda: server.reports and server.reports[-1]["stage"] == "training")
    reporter.point(4, loss=0.5)
    reporter.update(best=Best(step=4, metric="macro-f1", value=0.9), evaluation={"macro-f1": 0.9})
    server.wait(lambda: "best" in server.reports[-1])
    last = Report.model_validate_json(json.dumps(server.reports[-1]))
    assert (last.job_id, last.attempt, last.stage) == ("uid-1", 1, Stage.TRAINING)
    assert last.progress == Progress(step=3, total_steps=10)
    assert last.history[-1].loss == 0.5
    sequences = [r["sequence"] for r in server.reports]
    assert sequences == sorted(set(sequences))
    assert set(server.paths) == {"/report?job=1"}
    assert set(server.tokens) == {"Bearer token-1"}


def test_the_workers_reports_come_after_the_prepare_steps_whatever_the_clocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = config("s3://models/out")
    prepare = Reporter(settings, stage=Stage.PREPARING)
    monkeypatch.setattr(module, "_milliseconds", lambda: 5)  # the worker's node lives in 1970
    worker = Reporter(settings)
    assert worker.snapshot.sequence > prepare.snapshot.sequence
    assert worker.snapshot.sequence < 2**53  # exact in JSON
    again = Reporter(settings)
    again.update(stage=Stage.TRAINING)
    assert again.snapshot.sequence > worker.snapshot.sequence - 1
    for each in (prepare, worker, again):
        assert each.close()


def test_events_are_sent_at_once_and_progress_waits_for_the_interval(reporter: Reporter, server: ReportServer) -> None:
    server.wait(lambda: server.requests == 1)  # the first sign of life
    for step in range(5):
        reporter.update(progress=Progress(step=step), seconds={"train": 1.0 * step})
        reporter.point(step, loss=1.0)
    reporter.update(stage=Stage.LOADING)  # nothing new
    threading.Event().wait(0.2)
    assert server.requests == 1
    reporter.update(stage=Stage.EVALUATING)
    server.wait(lambda: server.requests == 2)
    assert server.reports[-1]["progress"]["step"] == 4
    reporter.flush()
    server.wait(lambda: server.requests == 3)


def test_signs_of_life_go_out_every_interval_although_nothing_changed(settings: Settings, server: ReportServer) -> None:
    reporter = Reporter(settings(intervalSeconds=0.05))
    server.wait(lambda: server.requests >= 5)
    reporter.close()
    sequences = [r["sequence"] for r in server.reports]
    assert sequences == sorted(set(sequences))


def test_while_the_server_hangs_the_caller_goes_on_and_only_the_latest_waits(
    reporter: Reporter, server: ReportServer
) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hang(number: int, report: dict[str, Any]) -> int:
        if number == 2:
            held.set()
            go_on.wait(20)
        return 200

    server.wait(lambda: server.requests == 1)
    server.answer = hang
    reporter.update(stage=Stage.TRAINING)
    assert held.wait(20)
    for step in range(100):  # the request is held all the while
        reporter.update(progress=Progress(step=step), best=Best(step=step, metric="loss", value=step))
    assert not go_on.is_set()
    go_on.set()
    server.wait(lambda: server.requests >= 3)
    assert server.reports[-1]["best"]["step"] == 99
    assert reporter.close()
    assert server.requests <= 4


def test_a_server_that_is_down_answers_500_and_comes_back(
    reporter: Reporter, server: ReportServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.wait(lambda: server.requests == 1)
    caplog.set_level(logging.INFO, "finetune_trainer.report.reporter")
    server.stop()
    for step in range(20):
        reporter.update(progress=Progress(step=step), best=Best(step=step, metric="loss", value=1.0))
        threading.Event().wait(0.01)
    server.answer = lambda number, report: 500
    server.start("one")
    reporter.update(best=Best(step=50, metric="loss", value=0.9))
    server.wait(lambda: server.requests >= 2)
    server.answer = lambda number, report: 200
    reporter.update(best=Best(step=60, metric="loss", value=0.9))
    server.wait(lambda: server.reports and server.reports[-1].get("best", {}).get("step") == 60)
    assert reporter.close()
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1  # one for the whole outage
    assert any("again" in message for message in caplog.messages)


def test_a_rotated_token_and_a_new_authority_are_taken_up(reporter: Reporter, server: ReportServer) -> None:
    server.wait(lambda: len(server.reports) == 1)
    server.token_file.write_text("token-2")
    reporter.flush()
    server.wait(lambda: len(server.reports) == 2)
    assert server.tokens == ["Bearer token-1", "Bearer token-2"]
    server.stop()
    server.start("two")  # the CA file is written anew by it
    reporter.flush()
    server.wait(lambda: len(server.reports) == 3)


def test_no_token_is_shown_to_a_server_that_the_ca_does_not_vouch_for(
    settings: Settings, server: ReportServer, tmp_path: Path
) -> None:
    from report.conftest import make_certificate

    other, _ = make_certificate(tmp_path, "somebody-else")
    reporter = Reporter(settings(caFile=str(other)))
    assert not reporter.close(final=False)
    assert server.requests == 0


def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, server: ReportServer
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Reporter(settings()).close()
    assert server.reports


def test_plain_http_is_refused() -> None:
    with pytest.raises(JobError) as caught:
        Reporter(config("s3://models/out", reporting={"url": "http://127.0.0.1:9/"}))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_close_delivers_the_last_word_through_an_outage_that_ends(reporter: Reporter, server: ReportServer) -> None:
    server.wait(lambda: server.requests == 1)
    server.answer = lambda number, report: 200 if number > 4 else 503
    reporter.update(stage=Stage.FINISHED)
    assert reporter.close()
    assert server.reports[-1]["stage"] == "finished"
    assert reporter.close()  # again does no harm


def test_close_gives_up_after_its_time(
    monkeypatch: pytest.MonkeyPatch, reporter: Reporter, server: ReportServer
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 1.5)
    server.wait(lambda: server.requests == 1)
    server.answer = lambda number, report: 503
    reporter.update(stage=Stage.FINISHED)
    assert not reporter.close()
    reporter._thread.join(20)
    assert not reporter._thread.is_alive()


def test_without_a_place_to_send_to_everything_still_works() -> None:
    reporter = Reporter(config("s3://models/out"))
    reporter.update(stage=Stage.TRAINING)
    assert reporter.snapshot.stage is Stage.TRAINING
    assert reporter.close()


def test_the_file_gets_a_line_for_each_report_and_the_snapshot_file_the_latest(tmp_path: Path) -> None:
    lines, snapshot = tmp_path / "reports.jsonl", tmp_path / "last.json"
    reporter = Reporter(
        config("s3://models/out", reporting={"file": str(lines), "intervalSeconds": 3600.0}), snapshot_file=snapshot
    )
    for stage in (Stage.TRAINING, Stage.EVALUATING, Stage.FINISHED):
        reporter.update(stage=stage)
    assert reporter.close()
    reports = [Report.model_validate_json(line) for line in lines.read_text().splitlines()]
    assert reports[-1] == reporter.snapshot == load_snapshot(snapshot)
    assert reports[-1].stage is Stage.FINISHED
    snapshot.write_text("{torn")
    assert load_snapshot(snapshot) is None
    assert load_snapshot(tmp_path / "none") is None


def test_a_file_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(config("s3://models/out", reporting={"file": str(tmp_path), "intervalSeconds": 0.02}))
    for step in range(5):
        reporter.update(best=Best(step=step, metric="loss", value=1.0))
    assert not reporter.close(final=False)
    assert len(caplog.messages) == 1


def test_what_is_too_long_or_not_a_number_is_brought_within_the_contract(reporter: Reporter) -> None:
    problem = Problem.model_construct(
        reason=Reason.INTERNAL_ERROR, message="x" * 5000, hint="y" * 5000, field=None, rank=None
    )
    checkpoint = Checkpoint(step=1, uri="u", bytes=1, digest="d", time="2026-01-01T00:00:00Z")
    reporter.update(
        problem=problem,
        checkpoints=[checkpoint] * 40,
        evaluation={"loss": float("nan"), "macro-f1": 0.5, "x" * 99: float("inf"), "y" * 99: 1.0},
        test={str(i): float(i) for i in range(40)},
    )
    found = reporter.snapshot
    assert Report.model_validate_json(found.model_dump_json(by_alias=True)) == found
    assert (len(found.problem.message), len(found.checkpoints), len(found.test)) == (1024, 12, 12)
    assert found.evaluation == {"macro-f1": 0.5, "y" * 63 + "…": 1.0}
    with pytest.raises(AssertionError):
        reporter.update(stagee=Stage.TRAINING)


def test_no_secret_leaves_by_any_way(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, server: ReportServer, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary/with+odd=chars")
    lines = tmp_path / "reports.jsonl"
    reporter = Reporter(settings(file=str(lines)))
    reporter.update(
        problem=Problem(
            reason=Reason.ACCESS_DENIED,
            message="signed with canary/with+odd=chars",
            hint="?s=canary%2Fwith%2Bodd%3Dchars",
        )
    )
    reporter.update(data=DataProfile(findings=(Finding(kind="x", message="a row says canary/with+odd=chars"),)))
    assert reporter.close()
    everything = lines.read_text() + json.dumps(server.reports)
    assert "canary" not in everything
    assert "[secret]" in everything
