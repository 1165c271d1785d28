"""What turns a row's raw inputs into what a model takes: a tokenizer, or something of the like for other inputs.

A task says which kind is its own (`Task.processor`); all else asks it for the few things below, and hands it to the
task's functions, which know what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from finetune_trainer.model.tokenizer import load_tokenizer


class Processor(Protocol):
    """Read from a model's folder; nothing of it changes by use."""

    @property
    def pad_id(self) -> int:
        """What rows of tokens are filled up with; 0 where rows are not made of tokens."""

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""

    @property
    def special_ids(self) -> frozenset[int | None]:
        """Tokens that are no text."""

    @property
    def added(self) -> frozenset[str]:
        """Tokens that stand beside the vocabulary."""

    @property
    def max_length(self) -> int | None:
        """Most positions of a row; None: no limit."""

    @property
    def fixed_length(self) -> int | None:
        """Positions of every row, where all have the same: then nothing is cut; None: rows differ."""

    def beyond(self, size: int) -> Mapping[str, int]:
        """Tokens whose id is not below `size`, with their ids."""


@dataclass(frozen=True, slots=True)
class ProcessorKind:
    """A kind of them: how it is read, and how whoever uses the export gets it."""

    load: Callable[[Path, datetime | None], Any]
    """(the model's folder, what templates take for the present) -> the processor; raises JobError."""
    auto_class: str
    """transformers' Auto class."""
    variable: str
    """What the model card calls it."""
    check: Callable[[Any, Mapping[str, Any], str], str | None] = lambda processor, config, source: None
    """(processor, config.json, source of the model's code) -> why the model does not take what it makes, or None."""


TOKENIZER = ProcessorKind(load_tokenizer, "AutoTokenizer", "tokenizer")
