"""Cutting a turn as another of its kind was cut: by the template's text around it, with gaps for what differs from turn
to turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune_trainer.tasks.chats.messages import Message
from finetune_trainer.tasks.chats.one_turn import OneByOne, Span, common

Field = tuple[int, str]
"""A field of the message before the turn (-1), of the turn itself (0) or of the one after (1)."""
Fields = Callable[[Field], str | None]
NUMBER: Field = (0, "")
"""Stands for a whole number, whichever: of the turn, or of the message."""
DIGITS = frozenset("0123456789")
SHORTEST = 2
"""Fields shorter than this are not looked for in the text: they stand everywhere."""


def fields_around(messages: list[Message], i: int) -> Fields:
    """What the messages around turn i hold beside their content: the id of a call, the name of a function."""

    def field(name: Field) -> str | None:
        at = i + name[0]
        value = messages[at].get(name[1]) if 0 <= at < len(messages) else None
        return value if isinstance(value, str) else None

    return field


@dataclass(frozen=True, slots=True)
class Wording:
    """Text of a template: what it writes every time, and gaps for numbers and fields of the messages."""

    parts: tuple[str | Field, ...]

    @classmethod
    def of(cls, text: str, messages: list[Message], i: int) -> Wording:
        """The text as it stands around turn i, with gaps where it shows a number or a field."""
        shown = {
            value: (offset, key)
            for offset in (-1, 0, 1)
            if 0 <= i + offset < len(messages)
            for key, value in messages[i + offset].items()
            if key not in ("role", "content") and isinstance(value, str) and len(value) >= SHORTEST and value in text
        }
        gaps = [*map(re.escape, sorted(shown, key=len, reverse=True)), "[0-9]+"]
        pieces = re.split(f"({'|'.join(gaps)})", text)
        return cls(tuple(p if k % 2 == 0 else shown.get(p, NUMBER) for k, p in enumerate(pieces) if p))

    @property
    def gapped(self) -> bool:
        """Whether it has gaps."""
        return any(not isinstance(part, str) for part in self.parts)

    def after(self, text: str, at: int, fields: Fields) -> int | None:
        """Where the wording ends that stands at `at`; None where another text does."""
        for part in self.parts:
            shown = _number_after(text, at) if part == NUMBER else _words(part, fields)
            if not shown or not text.startswith(shown, at):
                return None
            at += len(shown)
        return at

    def before(self, text: str, at: int, fields: Fields) -> int | None:
        """Where the wording begins that ends at `at`; None where another text does."""
        for part in reversed(self.parts):
            shown = _number_before(text, at) if part == NUMBER else _words(part, fields)
            if not shown or not text.endswith(shown, 0, at):
                return None
            at -= len(shown)
        return at


def _words(part: str | Field, fields: Fields) -> str | None:
    return part if isinstance(part, str) else fields(part)


def _number_after(text: str, at: int) -> str:
    """All the digits that begin at `at`."""
    end = at
    while text[end : end + 1] in DIGITS:
        end += 1
    return text[at:end]


def _number_before(text: str, at: int) -> str:
    """All the digits that end at `at`."""
    begin = at
    while begin and text[begin - 1] in DIGITS:
        begin -= 1
    return text[begin:at]


@dataclass(frozen=True, slots=True)
class Cut:
    """How the turns of a kind are cut from what stands between the words of the message before and of the one after.

    `tail` ends the message before, `opening` is as much of the generation prompt as must stand behind it and `more` the
    rest of it, `rest` begins the message after, and `closing` ends the turn behind its content (None: calls stand in
    between).
    """

    tail: Wording
    opening: Wording
    more: str
    rest: Wording
    closing: Wording | None

    @classmethod
    def like(cls, one: OneByOne, i: int, left: int, right: int) -> tuple[Span | None, Cut | None]:
        """Where turn i stands between `left` and `right`, located by itself, and how turns of its kind are cut, if that
        can be told.
        """
        place = one.located(i)
        if place is None:
            return None, None
        span = place.begin, place.end
        if place.start is None or not left <= place.start or not place.end <= right:
            return span, None
        text, messages = one.text, one.chat.messages
        closing = None if "tool_calls" in messages[i] else one.closing(i, place)

        def wording(part: str) -> Wording:
            return Wording.of(part, messages, i)

        cut = cls(
            wording(text[left : place.start]),
            wording(text[place.start : place.begin]),
            place.opening[place.begin - place.start :],
            wording(text[place.end : right]),
            None if closing is None else wording(closing),
        )
        return span, cut if cut._is_clear() else None

    def _is_clear(self) -> bool:
        """Whether no gap stands where the turn's own words could run into it."""
        if self.more and self.opening.gapped:
            # the generation prompt does not stand there whole: another number may differ earlier, or later
            return False
        return self.closing is not None or self.rest.parts[:1] != (NUMBER,)

    @property
    def gapped(self) -> bool:
        """Whether it holds for turns around which other numbers or fields stand."""
        return any(w is not None and w.gapped for w in (self.tail, self.opening, self.rest, self.closing))

    def span(self, text: str, left: int, right: int, content: str, fields: Fields) -> Span | None:
        """The turn in text[left:right]; None where other text stands around it."""
        start = self.tail.after(text, left, fields)
        begin = None if start is None else self.opening.after(text, start, fields)
        end = self.rest.before(text, right, fields)
        if begin is None or end is None or begin >= end:
            return None
        if self.closing is not None:
            said = self.closing.before(text, end, fields)
            if said is None or not any(text.endswith(words, left, said) for words in spellings(content)):
                return None
        return begin + common(self.more, text, begin), end


def spellings(content: str) -> Iterator[str]:
    """How templates write a content: as it is, trimmed, as JSON."""
    yield content
    if content[:1].isspace() or content[-1:].isspace():
        yield from (content.strip(), content.lstrip(), content.rstrip())
    yield json.dumps(content, ensure_ascii=False)[1:-1]
