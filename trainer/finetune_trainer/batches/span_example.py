"""A question on a text, window by window: what the model takes of it, and where the answer stands."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_trainer.batches.example import TextExample


@dataclass(frozen=True, slots=True)
class Asked:
    """What all windows of a row share; by `key` (the row's number in its split) they are brought together again."""

    key: int
    context: str
    answers: tuple[str, ...]
    """The right ones as text; none where the context has no answer."""
    windows: int
    found: bool = True
    """Whether a window holds the right answer whole, if there is one; else the row is judged by what is answered alone,
    and has no loss."""


@dataclass(frozen=True, slots=True)
class SpanExample(TextExample):
    """One window. Positions count from its first token; the context's tokens stand together."""

    asked: Asked
    offsets: list[tuple[int, int]]
    """Of each token of the context that is in the window: where it begins and ends in the whole context."""
    first: int
    """The position of the first of them."""
    null: int
    """The position that stands for "no answer in this window"."""
    span: tuple[int, int]
    """Positions of the answer's first and last token; (null, null) where the window does not hold it whole."""

    @property
    def losses(self) -> float:
        """A row weighs one, whatever its windows."""
        return 1 / self.asked.windows if self.asked.found else 0.0

    def labels(self, width: int) -> list[int]:
        """[start, end, null, first of the context, the one behind its last, windows of the row; 0: it has no loss]."""
        windows = self.asked.windows if self.asked.found else 0
        return [*self.span, self.null, self.first, self.first + len(self.offsets), windows]

    def text(self, start: int, end: int) -> tuple[int, int]:
        """Where in the context the tokens at these positions (the last included) begin and end, without white space
        around them."""
        low, high = self.offsets[start - self.first][0], self.offsets[end - self.first][1]
        found = self.asked.context[low:high]
        low += len(found) - len(found.lstrip())
        return low, max(low, low + len(found.strip()))
