"""The TensorBoard event file: written at the end, from the log, so that no step stands in it twice after a resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def write_tensorboard(folder: Path, events: Iterable[dict[str, Any]]) -> None:
    """Write one event file below `folder`: every number of every step and evaluation as a scalar."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "events.out.tfevents.0000000001.finetune", "wb") as file:
        records = RecordWriter(file)
        records.write(event_pb2.Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for event in events:
            values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(event)]
            if values:
                record = event_pb2.Event(
                    wall_time=event["time"], step=event["step"], summary=summary_pb2.Summary(value=values)
                )
                records.write(record.SerializeToString())
        records.flush()


def scalars(event: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of an event's numbers: train/… of steps, eval/… of evaluations; fold-1/… of a fold's steps, and
    folds/… of what each fold came to.
    """
    prefix = {"step": "train", "evaluation": "eval", "fold": "folds"}.get(event["kind"])
    if prefix == "train" and "fold" in event:
        prefix = f"fold-{event['fold']}"
    if prefix:
        numbers = {**event, **event.get("metrics", {})} if isinstance(event.get("metrics"), dict) else event
        for name, value in numbers.items():
            if (
                name not in ("kind", "step", "time", "fold")
                and isinstance(value, int | float)
                and not isinstance(value, bool)
            ):
                yield f"{prefix}/{name}", float(value)
