"""Which column plays which role, from the spec and from what the data has; a misspelt name is told its nearest neighbour."""

from __future__ import annotations

import difflib
from typing import Any

from finetune_api.exits import JobError
from finetune_api.run import RunConfig
from finetune_trainer.prepare.scan import peek_columns
from finetune_trainer.stream.listing import Listing
from finetune_trainer.tasks.base import Task


def pick_columns(config: RunConfig, task: Task, listing: Listing) -> dict[str, str]:
    """The mapping, from the columns of the first object that has any."""
    for info, kind in listing.objects[:20]:
        found = peek_columns(listing.store, info, kind)
        if found:
            try:
                return task.columns(found, config.data.columns)
            except JobError as error:
                asked = _as_asked(config).get((error.field or "").rpartition(".")[2])
                if kind.name == "csv":
                    error.hint += " The first line of a csv file must name its columns."
                if asked and (near := difflib.get_close_matches(asked, found, 1)):
                    error.hint = f"Did you mean {near[0]!r}? {error.hint}"
                raise
    # No readable row: the survey says where and why, under the names that were asked for.
    return _as_asked(config)


def _as_asked(config: RunConfig) -> dict[str, str]:
    asked: dict[str, Any] = config.data.columns.to_json() if config.data.columns else {}
    usual = {"text": "text", "label": "label"} if config.task == "text-classification" else {"messages": "messages"}
    return {str(role): str(name) for role, name in asked.items()} or usual
