"""task.json: how rows become inputs and outputs become answers, for whoever runs the model on new rows."""

from __future__ import annotations

from finetune_trainer.output.result import Result

NAME = "task.json"
VERSION = 2
"""The newest; 1 is what needs no `head`."""


def task_file(result: Result) -> dict[str, object]:
    """The content of task.json."""
    facts, resolved = result.facts, result.report.resolved
    return {
        "version": VERSION if result.head else 1,
        "task": result.config.task,
        "columns": dict(facts.columns),
        "labels": list(facts.labels),
        "settings": None if facts.settings is None else facts.settings.to_json(),
        "maxLength": resolved and resolved.max_length,
        "decision": dict(result.decision),
        **({"head": dict(result.head)} if result.head else {}),
    }
