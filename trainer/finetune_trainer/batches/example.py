"""What tasks make of rows: one example after the other, as the model takes them; without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

IGNORE = -100
"""The label of a token that is not learned; torch's cross-entropy leaves it out."""


class Example(ABC):
    """A row, or a part of one: what the model is given, and what is to be learned of it.

    `full_length` counts the positions before they were cut to the maximum; `hidden` counts parts of the row that cannot
    be learned (turns of a chat, say, that the model's template does not show whole).
    """

    __slots__ = ()
    full_length: int
    hidden: int
    bytes: ClassVar[int] = 0
    """What it holds in memory, where that is much: pixels, not token ids."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Positions as the model takes them (tokens, patches): what padding, memory and time go by."""

    @property
    def tokens(self) -> int:
        """Positions that are counted where tokens are: of the whole input, also where what was made of it is given."""
        return self.length

    @property
    @abstractmethod
    def losses(self) -> float:
        """How many losses it has: its weight in the mean over a global batch."""

    @abstractmethod
    def inputs(self, width: int, pad_id: int) -> dict[str, Any]:
        """What the model takes by keyword, padded to `width`: lists of numbers, or numpy arrays."""

    @abstractmethod
    def labels(self, width: int) -> Any:
        """What the objective compares with: a number, or a list of numbers."""

    @abstractmethod
    def alone(self, most: int) -> dict[str, Any]:
        """What the model takes of its first `most` positions, without padding: to compare models by."""

    @property
    def told(self) -> Example:
        """What whoever judges the model's answers looks at."""
        return self

    @property
    def rank(self) -> int:
        """Positions that its place in a batch goes by, the longest first."""
        return self.length

    def lean(self, places: slice) -> Example | None:
        """What is left of it where the model's lower layers are not asked again, and these positions alone are read;
        None for a kind that does not tell: then they are asked each time.
        """
        return None

    def learned_ends(self, special: Container[int | None]) -> Sequence[int]:
        """The special tokens that are learned as the end of a turn or of a text; none where no text is learned."""
        return ()


@dataclass(frozen=True, slots=True)
class TextExample(Example):
    """Token ids; each task adds what is to be learned."""

    input_ids: list[int]
    type_ids: list[int] | None
    full_length: int
    hidden: int = field(default=0, kw_only=True)

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.input_ids)

    def inputs(self, width: int, pad_id: int) -> dict[str, Any]:
        """Padded on the right.

        The mask goes by position, so a pad token that is also the EOS is still seen where it ends a text.
        """
        padding = width - self.length
        found = {"input_ids": self.input_ids + [pad_id] * padding, "attention_mask": [1] * self.length + [0] * padding}
        if self.type_ids is not None:
            found["token_type_ids"] = self.type_ids + [0] * padding
        return found

    def alone(self, most: int) -> dict[str, Any]:
        """The ids."""
        return {"input_ids": self.input_ids[:most]}

    def lean(self, places: slice) -> Example:
        """The ids still tell what is padding."""
        types = self.type_ids
        return replace(self, input_ids=self.input_ids[places], type_ids=None if types is None else types[places])


@dataclass(frozen=True, slots=True)
class PlainExample(TextExample):
    """A text of which nothing is learned: one that is to be answered."""

    @property
    def losses(self) -> int:
        """None."""
        return 0

    def labels(self, width: int) -> int:
        """Nothing to compare with."""
        return IGNORE


@dataclass(frozen=True, slots=True)
class ClassExample(TextExample):
    """A text that belongs to the class of this index."""

    label: int

    @property
    def losses(self) -> int:
        """One."""
        return 1

    def labels(self, width: int) -> int:
        """The class."""
        return self.label


@dataclass(frozen=True, slots=True)
class MaskedExample(TextExample):
    """A text of which tokens are hidden: `targets` has the id that belongs in its place, or IGNORE, for each token."""

    targets: list[int]

    @property
    def losses(self) -> int:
        """The hidden tokens."""
        return sum(target != IGNORE for target in self.targets)

    def labels(self, width: int) -> list[int]:
        """The targets; padding is not learned."""
        return self.targets + [IGNORE] * (width - self.length)


@dataclass(frozen=True, slots=True)
class ClassesExample(TextExample):
    """A text that belongs to any number of classes: `having` is 1 at the places of those, else 0."""

    having: list[int]

    @property
    def losses(self) -> int:
        """One, however many classes there are."""
        return 1

    def labels(self, width: int) -> list[int]:
        """0 or 1 for each class."""
        return self.having


@dataclass(frozen=True, slots=True)
class NumberExample(TextExample):
    """A text with a number."""

    number: float

    @property
    def losses(self) -> int:
        """One."""
        return 1

    def labels(self, width: int) -> float:
        """The number."""
        return self.number


@dataclass(frozen=True, slots=True)
class TokenExample(TextExample):
    """A text of which tokens are learned: `targets` has one id or IGNORE for each input token."""

    targets: list[int]

    @property
    def losses(self) -> int:
        """The learned tokens but for the first, which nothing predicts."""
        return sum(target != IGNORE for target in self.targets[1:])

    def labels(self, width: int) -> list[int]:
        """The targets; padding is not learned."""
        return self.targets + [IGNORE] * (width - self.length)

    def learned_ends(self, special: Container[int | None]) -> Sequence[int]:
        """Learned special tokens that no learned token follows, where the text was not cut."""
        if self.full_length != self.length:
            return ()
        following = [*self.targets[1:], IGNORE]
        return [a for a, b in zip(self.targets, following, strict=True) if a in special and b == IGNORE]
