"""What a job's output says of itself: result.json says that it is whole, task.json how rows become answers."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.base import FieldError, parse_stored
from finetune_api.exits import JobError, Reason
from finetune_trainer.output.commit import NAME as RESULT
from finetune_trainer.output.task_file import NAME as TASK
from finetune_trainer.output.task_file import VERSION
from finetune_trainer.storage import Location
from finetune_trainer.tasks.base import Decision, JobFacts, Task
from finetune_trainer.tasks.registry import TASKS


@dataclass(frozen=True, slots=True)
class Described:
    """An output as its task.json describes it; `files` are the names of all that belongs to it."""

    task: Task
    facts: JobFacts
    decision: Decision
    max_length: int
    files: frozenset[str]
    head: Mapping[str, Any] | None = None
    """Of our own, beside the model; None: the model has its head."""


def describe(out: Location, columns: Mapping[str, str]) -> Described:
    """Read both files; `columns` (role -> column) go before those of the job. Raises JobError."""
    files = _committed(out)
    said = _task_file(out)
    task = TASKS.get(str(said.get("task")))
    if task is None:
        raise _refusal(
            f"{out.uri(TASK)} is of task {str(said.get('task'))!r}, and this version knows {', '.join(TASKS)}",
            "Use the version of finetune-operator that made it, or a newer one.",
        )
    own = dict(said["columns"])
    roles = {role.name for role in task.info.roles}
    if unknown := next((role for role in columns if role not in roles), None):
        near = difflib.get_close_matches(unknown, roles, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        message = f"{task.info.name} has no column for {unknown!r}; it has {', '.join(sorted(roles))}"
        raise _refusal(message, f"{hint}Write --column ROLE=NAME.")
    facts = JobFacts(
        {**own, **columns}, tuple(said.get("labels") or ()), settings=_settings(task, said.get("settings"))
    )
    return Described(
        task, facts, said.get("decision") or {}, int(said.get("maxLength") or 512), files, said.get("head")
    )


def _committed(out: Location) -> frozenset[str]:
    """The files of a result that is whole."""
    text = out.find(RESULT)
    try:
        said = json.loads(text) if text is not None else {}
        whole = bool(said.get("report"))
        files = frozenset(said.get("files") or ())
    except (ValueError, AttributeError, TypeError):
        whole, files = False, frozenset[str]()
    if whole:
        return files
    begun = text is not None or out.head("job.json") is not None
    if begun:
        raise _refusal(
            f"the job at {out.uri()} has not finished: there is no whole {RESULT}", "Let it run to its end first."
        )
    if out.head("config.json") is not None:
        raise _refusal(
            f"{out.uri()} holds a model, but no job's output: there is no {RESULT}",
            "Name what a job wrote, its spec.output.uri.",
        )
    raise _refusal(
        f"{out.uri()} is no job's output: there is no {RESULT}", "Name the folder or URI of a job's spec.output.uri."
    )


def _task_file(out: Location) -> dict[str, Any]:
    text = out.find(TASK)
    if text is None:
        raise _refusal(
            f"{out.uri()} has no {TASK}: an older version wrote it, which did not say how rows become answers",
            "Run the job again with this version, or use the model as its README.md shows.",
        )
    try:
        said = json.loads(text)
        version, columns = int(said["version"]), {str(k): str(v) for k, v in said["columns"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _refusal(f"{out.uri(TASK)} cannot be read", "Fetch the output once more, or run the job again.") from None
    if version > VERSION:
        raise _refusal(
            f"{out.uri(TASK)} is of version {version}, and this one reads {VERSION}", "Update finetune-operator."
        )
    return {**said, "columns": columns}


def _settings(task: Task, said: Any) -> Any:
    """The settings that the job had; those that this version does not know are passed over."""
    if said is None or task.defaults is None:
        return task.defaults
    try:
        return parse_stored(type(task.defaults), said)[0]
    except FieldError as error:
        raise _refusal(f"{TASK}: settings: {error}", "Use the version of finetune-operator that made it.") from None


def _refusal(message: str, hint: str) -> JobError:
    return JobError(Reason.MODEL_NOT_FOUND, message, hint=hint)
