"""Which column plays which role, from the spec and from what the data has; a misspelt name is told its nearest neighbour."""

from __future__ import annotations

import difflib
from typing import Any

from finetune_api.exits import JobError
from finetune_api.forms import one_form
from finetune_api.job import Columns
from finetune_api.run import RunConfig
from finetune_trainer.prepare.scan import peek_columns
from finetune_trainer.stream.listing import Listing
from finetune_trainer.tasks.base import Task


def pick_columns(config: RunConfig, task: Task, listing: Listing) -> dict[str, str]:
    """The mapping, from the columns of the first object that has any."""
    for info, kind in listing.objects[:20]:
        found = [one_form(name) for name in peek_columns(listing.store, info, kind)]
        if found:
            try:
                return task.columns(found, _wanted(config))
            except JobError as error:
                asked = _as_asked(config).get((error.field or "").rpartition(".")[2])
                if kind.name == "csv":
                    error.hint += " The first line of a csv file must name its columns."
                if asked and (near := difflib.get_close_matches(asked, found, 1)):
                    error.hint = f"Did you mean {near[0]!r}? {error.hint}"
                raise
    # No readable row: the survey says where and why, under the names that were asked for.
    return _as_asked(config)


def _wanted(config: RunConfig) -> Columns | None:
    """spec.data.columns, its names in the form in which they are compared."""
    asked = config.data.columns
    if asked is None:
        return None
    return asked.model_copy(update={role: one_form(name) for role, name in asked if isinstance(name, str)})


def _as_asked(config: RunConfig) -> dict[str, str]:
    wanted = _wanted(config)
    asked: dict[str, Any] = wanted.to_json() if wanted else {}
    usual = {"text": "text", "label": "label"} if config.task == "text-classification" else {"messages": "messages"}
    return {str(role): str(name) for role, name in asked.items()} or usual
