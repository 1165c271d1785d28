"""What a task makes of the model's head: where it comes from, and so how every method has to treat it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeadPolicy:
    """Part of a task's value.

    `is_new`: the head is the task's own, with a pooler before it: the base need not have one, and adapters leave it to
    be trained whole. Else the head is a layer of the base like any other, as a language model's output projection is.
    `peft_task`: what peft calls a model with this head.
    """

    is_new: bool
    peft_task: str
