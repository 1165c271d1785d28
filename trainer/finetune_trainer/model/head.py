"""What a task makes of a model's head: which class of transformers has it, where its weights come from, how methods
treat it.

A value that tasks hand to the model and the methods, so that neither knows a task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Refusal = Callable[[Mapping[str, Any], str], str | None]


def _anything(config: Mapping[str, Any], source: str) -> None:
    """Refuses nothing."""


@dataclass(frozen=True, slots=True)
class HeadPolicy:
    """Part of a task's value.

    `serves`      what a model with this head is for, in messages
    `class_name`  the names of transformers' classes that have it
    `auto_class`  transformers' Auto class, for whoever uses the export
    `peft_task`   what peft calls a model with it
    `is_new`      the head is the task's own, with a pooler before it: the base need not have one, and adapters leave it
                  to be trained whole. Else it is a layer of the base like any other, as a language model's output
                  projection is
    `writes`      it writes text: a cache is of no use in training, and no pad token is needed
    `config`      classes -> fields of the model's config that a new head decides
    `refusal`     config.json and the source of the model's code -> why the model does not serve, or None
    """

    serves: str
    class_name: re.Pattern[str]
    auto_class: str
    peft_task: str
    is_new: bool = False
    writes: bool = False
    config: Callable[[Sequence[str]], dict[str, Any]] = lambda labels: {}
    refusal: Refusal = _anything

    def is_had_by(self, class_names: Sequence[str]) -> bool:
        """Whether a model that was saved as one of these classes has such a head."""
        return any(self.class_name.fullmatch(str(name)) for name in class_names)
