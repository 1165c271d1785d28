"""events.jsonl and TensorBoard hold each step once, whatever the number of attempts."""

from __future__ import annotations

import json
import math
from pathlib import Path

from finetune_trainer.output import EventLog
from finetune_trainer.output.tensorboard import write_tensorboard
from output.cases import events


def _steps(log: EventLog) -> list[int]:
    return [e["step"] for e in log if e["kind"] == "step"]


def test_what_a_killed_run_did_after_its_checkpoint_is_cut_away() -> None:
    first = EventLog()
    for step in range(1, 6):
        first.add("step", step, loss=1.0)
        if step == 2:
            first.blob()  # an earlier checkpoint: frames add up
    saved = first.blob()
    for step in range(6, 9):
        first.add("step", step, loss=1.0)  # lost with the kill
    first.blob()

    second = EventLog.restore(saved)
    for step in range(6, 11):
        second.add("step", step, loss=0.5)
    again = EventLog.restore(second.blob())
    assert _steps(second) == _steps(again) == list(range(1, 11))
    assert list(again.lines()) == list(second.lines())


def test_lines_are_json_and_numbers_that_are_not_finite_are_null() -> None:
    log = EventLog()
    log.add("step", 1, loss=float("nan"), metrics={"a": float("inf"), "b": 1.0})
    (line,) = log.lines()
    event = json.loads(line, parse_constant=lambda name: 1 / 0)
    assert (event["kind"], event["step"], event["loss"], event["metrics"]) == ("step", 1, None, {"a": None, "b": 1.0})


def test_an_empty_log_is_empty() -> None:
    assert list(EventLog().lines()) == []
    assert list(EventLog.restore(EventLog().blob())) == []


def test_long_logs_come_back_whole() -> None:
    log = EventLog()
    for step in range(5000):
        log.add("step", step, text="ü" * (step % 50))
        if step % 700 == 0:
            log.blob()
    assert _steps(EventLog.restore(log.blob())) == list(range(5000))


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    log = events(steps=40, every=10)
    log.add("note", 40, text="not a number")
    write_tensorboard(tmp_path / "tensorboard", log)
    (file,) = (tmp_path / "tensorboard").iterdir()
    seen: dict[str, dict[int, float]] = {}
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            tag = seen.setdefault(value.tag, {})
            assert event.step not in tag
            tag[event.step] = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
    assert set(seen["train/loss"]) == set(range(1, 41))
    assert set(seen["eval/macro-f1"]) == {10, 20, 30, 40}
    assert all(math.isclose(seen["train/loss"][e["step"]], e["loss"], rel_tol=1e-6) for e in log if e["kind"] == "step")
