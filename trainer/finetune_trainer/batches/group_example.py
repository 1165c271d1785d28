"""Texts that are compared with each other, as one example: what is learned is which of them are of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_trainer.batches.example import Example


@dataclass(frozen=True, slots=True)
class GroupExample(Example):
    """All groups of a job have as many members; `classes` has the class of each.

    The group is the example, so that the whole of a loss stays in one micro-batch (I1).
    """

    members: tuple[Example, ...]
    classes: tuple[int, ...]
    hidden: int = 0

    @property
    def length(self) -> int:
        """Of the longest member: the others are padded to it."""
        return max(member.length for member in self.members)

    @property
    def full_length(self) -> int:  # type: ignore[override]
        """Of the longest member."""
        return max(member.full_length for member in self.members)

    @property
    def tokens(self) -> int:
        """Of all members."""
        return sum(member.tokens for member in self.members)

    @property
    def losses(self) -> int:
        """One, however many members there are."""
        return 1

    def inputs(self, width: int, pad_id: int) -> dict[str, Any]:
        """Those of the members, one below the other."""
        each = [member.inputs(width, pad_id) for member in self.members]
        return {name: [inputs[name] for inputs in each] for name in each[0]}

    def labels(self, width: int) -> list[int]:
        """The members' classes."""
        return list(self.classes)

    def alone(self, most: int) -> dict[str, Any]:
        """The first member."""
        return self.members[0].alone(most)
