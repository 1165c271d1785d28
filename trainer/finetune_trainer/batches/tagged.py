"""Texts whose words are told apart, in windows where they are long: what is learned of each, and how it is judged."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_trainer.batches.example import IGNORE, TextExample


@dataclass(frozen=True, slots=True, eq=False)
class TaggedRow:
    """What a row's windows share: its units (the words that the model sees), and the truth about them.

    `spans` are entities (first unit, last unit exclusive, number of the type); `lost_spans` the numbers of the types of
    those that have no unit, which nobody can find. `lost_tags` are the numbers of the tags of words that are no unit, O
    left out: their answer is wrong. `parts`: how many examples the row gives.
    """

    units: int
    parts: int
    spans: tuple[tuple[int, int, int], ...] = ()
    lost_spans: tuple[int, ...] = ()
    lost_tags: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TaggedExample(TextExample):
    """A window of a text; `targets` has the number of an output at the first token of each of its own units, else
    IGNORE. The first of these units is number `first` of the row.
    """

    targets: list[int]
    row: TaggedRow
    first: int

    @property
    def losses(self) -> int:
        """One for each unit."""
        return sum(target != IGNORE for target in self.targets)

    def labels(self, width: int) -> list[int]:
        """The targets; padding is not learned."""
        return self.targets + [IGNORE] * (width - self.length)

    @property
    def learned(self) -> list[int]:
        """The targets of its own units, in their order."""
        return [target for target in self.targets if target != IGNORE]
