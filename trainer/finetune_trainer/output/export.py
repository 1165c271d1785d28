"""Put all artefacts of a successful run into a folder; `commit` then makes them the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from finetune_trainer.output.card import model_card
from finetune_trainer.output.errors import error_lines
from finetune_trainer.output.events import EventLog
from finetune_trainer.output.metrics import metrics
from finetune_trainer.output.page.page import html_report
from finetune_trainer.output.result import Result
from finetune_trainer.output.task_file import NAME, task_file
from finetune_trainer.output.tensorboard import write_tensorboard


def export(folder: Path, result: Result, events: EventLog, write: Callable[[Path], None]) -> None:
    """Fill the (empty) folder: the model by `write(folder)`, README.md, task.json, metrics.json, events.jsonl,
    errors.jsonl (where answers were wrong), tensorboard/ and report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    assert not any(folder.iterdir()), f"{folder} is not empty"
    write(folder)
    (folder / "README.md").write_text(model_card(result))
    (folder / NAME).write_text(json.dumps(task_file(result), indent=2, ensure_ascii=False) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics(result), indent=2) + "\n")
    with open(folder / "events.jsonl", "w") as lines:
        lines.writelines(events.lines())
    if result.wrong_answers:
        (folder / "errors.jsonl").write_text("".join(error_lines(result)))
    write_tensorboard(folder / "tensorboard", events)
    (folder / "report.html").write_text(html_report(result, list(events)))
