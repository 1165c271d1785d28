"""The model: it is there, its class is known, and it takes rows as long as the spec wants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.methods import method_for
from finetune_trainer.model import facts, fetch
from finetune_trainer.model.size import model_bytes
from finetune_trainer.tasks.base import Task

LEAST = 8
"""Tokens of a row that a method must leave room for: the least that spec.training.maxLength may be."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the model's small files say; they lie in `folder`.

    revision: commit of an hf:// model. bytes: of the files that each node fetches. max_length: tokens of a row, at
    most. config: its config.json. tokenizer: what encodes raw inputs, of the task's kind.
    """

    folder: Path
    revision: str | None
    config: dict[str, Any]
    class_name: str
    bytes: int
    tokenizer: Any
    max_length: int


def check_model(config: RunConfig, task: Task, now: datetime) -> ModelFacts:
    """Fetch the small files and look. The chat template takes `now` for the present. Raises JobError."""
    revision = fetch.resolve_revision(config)
    folder = fetch.fetch_model(config, weights=False, revision=revision)
    said = facts.read_config(folder)
    architecture = facts.architecture(said, task.head)
    size = model_bytes(config, revision)
    tokenizer = task.processor.load(folder, now)
    if refusal := task.processor.check(tokenizer, said, facts.source_of(architecture)):
        raise JobError(Reason.UNSUPPORTED_MODEL, refusal, field=facts.FIELD)
    max_length = tokenizer.fixed_length or _room(config, facts.model_max_length(architecture, tokenizer.max_length))
    wanted = config.training.max_length
    if wanted is not None and tokenizer.fixed_length:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"maxLength {wanted} has no meaning for {task.info.name}: every row is of the same size",
            field="spec.training.maxLength",
            hint="Leave it out.",
        )
    if wanted is not None and wanted > max_length:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"maxLength {wanted} is more than the {max_length} tokens that the model takes",
            field="spec.training.maxLength",
            hint=f"Set it to {max_length} or less, or leave it out.",
        )
    return ModelFacts(folder, revision, said, architecture.class_name, size, tokenizer, max_length)


def _room(config: RunConfig, positions: int) -> int:
    """How many of the model's positions the method leaves to a row."""
    method = method_for(config.method)
    taken = method.extra_positions(method.settings(config.method))
    if taken and positions - taken < LEAST:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"method {method.name} takes {taken} of the model's {positions} positions, and leaves none to the rows",
            field=f"spec.method.{method.info.settings_field}",
            hint="Set fewer virtual tokens.",
        )
    return positions - taken
