"""One turn of the assistant located in a rendered chat, by rendering the chat up to it and up to and with it."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.chats.messages import Chat, called

Span = tuple[int, int]
"""Begin and end of a turn in the rendered chat, in characters."""
MARKER = "\x01\x02\x03"
"""Stands in for a turn's words; no tokenizer's template handles control characters."""


@dataclass(frozen=True, slots=True)
class LocatedTurn:
    """Where a turn stands, and what surrounds it.

    `start` is where the messages before it end (None: unknown), `opening` the generation prompt there.
    """

    start: int | None
    opening: str
    begin: int
    end: int


class OneByOne:
    """Locate single turns by rendering the chat up to them."""

    def __init__(self, tokenizer: Tokenizer, chat: Chat, text: str) -> None:
        self.tokenizer, self.chat, self.text = tokenizer, chat, text
        self._prompt: str | None = None
        self.turns = 0
        """How many were located so."""

    def span(self, i: int) -> Span | None:
        """Begin and end of turn i; None where they cannot be told."""
        place = self.located(i)
        return None if place is None else (place.begin, place.end)

    def located(self, i: int) -> LocatedTurn | None:
        """The same with the end of what stands before the turn, and the generation prompt there."""
        self.turns += 1
        before = self._part(i) if i else None
        prompt = self._part(i, generation_prompt=True) if before is not None else None
        after = self.text if i == len(self.chat.messages) - 1 else self._part(i + 1)
        start, opening = None, ""
        if before is not None and prompt is not None and self.text.startswith(before) and prompt.startswith(before):
            start, opening = len(before), prompt[len(before) :]
        end = len(after) if after is not None and self.text.startswith(after) else None
        own = self._own_words(i) if start is None or end is None else None
        if end is None:
            end = self._end_by_rest(i, own, after)
        if end is None:
            return None
        if start is None:
            begin = self._begin_by_words(i, own if own is not None else self._own_words(i))
        else:
            begin = start + common(opening, self.text, start)
        return LocatedTurn(start, opening, begin, end) if begin is not None and begin < end else None

    def closing(self, i: int, place: LocatedTurn) -> str | None:
        """What ends the turn behind its content; None where that is not told."""
        content = (self.chat.messages[i].get("content") or "").lstrip()
        shown = self.text[place.begin : place.end]
        for words in (content, content.rstrip()):
            if 0 <= shown.find(words) == shown.rfind(words):
                return shown.partition(words)[2]
        own = self._own_words(i)
        words = next((w for w in (content, content.rstrip()) if own is not None and self.text.startswith(w, own)), None)
        return None if own is None or words is None else self.text[own + len(words) : place.end]

    def _part(self, count: int, *, generation_prompt: bool = False) -> str | None:
        try:
            return self.chat.render(self.tokenizer, count, generation_prompt=generation_prompt)
        except RefusedChat:
            return None  # the whole was not refused: only this part of it is no chat for the template

    def _marked(self, i: int, count: int | None = None) -> str:
        """What is rendered before the first words of turn i (its content, else the first function it calls); "" if they
        are hidden.
        """
        message = dict(self.chat.messages[i])
        if self._content(i):
            message["content"] = MARKER
        else:
            first, *others = message["tool_calls"]
            named = {**first.get("function", first), "name": MARKER}
            message["tool_calls"] = [{**first, "function": named} if "function" in first else named, *others]
        messages = [*self.chat.messages[:i], message, *self.chat.messages[i + 1 :]][:count]
        try:
            head, found, _ = self.tokenizer.render(messages, self.chat.tools).partition(MARKER)
        except RefusedChat:
            return ""
        return head if found else ""

    def _own_words(self, i: int) -> int | None:
        """Where in the text the turn's first words stand."""
        head = self._marked(i)
        if not head or not self.text.startswith(head):
            return None
        words = self._content(i) or called(self.chat.messages[i])[0]
        at = len(head)
        while at < len(self.text) and self.text[at].isspace():
            at += 1
        return at if self.text.startswith(words, at) else None

    def _end_by_rest(self, i: int, own: int | None, after: str | None) -> int | None:
        """Where the turn ends, by what follows its first words where it is the last of its chat."""
        if own is None:
            return None
        head = self._marked(i, i + 1)
        rest = after[len(head) :].lstrip() if after is not None and head and after.startswith(head) else ""
        if rest and self.text.startswith(rest, own):
            return own + len(rest)
        if called(self.chat.messages[i]):
            return None
        return self.tokenizer.end_of_special(self.text, own + len(self._content(i)))

    def _begin_by_words(self, i: int, own: int | None) -> int | None:
        """Where turn i begins if what stands before it cannot be rendered: behind the generation prompt before its own
        words.
        """
        if own is None:
            return None
        opening = self._generation_prompt()
        at = self.text.rfind(opening, 0, own) if opening else -1
        if at >= 0 and self._is_ours(i, self.text[at + len(opening) : own]):
            return at + len(opening)
        if not self._content(i):
            return None  # what the template writes before the function's name is part of the turn, and cannot be told
        return own - 1 if self.text[own - 1 : own] == " " else own

    def _is_ours(self, i: int, between: str) -> bool:
        """Whether nothing but this turn can stand between that generation prompt and the words of turn i."""
        if i == 0 or not between.strip():
            return True
        return not self._content(i) and bool(self._content(i - 1)) and self._content(i - 1) not in between

    def _content(self, i: int) -> str:
        return (self.chat.messages[i].get("content") or "").strip()

    def _generation_prompt(self) -> str:
        """What the template puts after a single question, for the assistant to go on."""
        if self._prompt is None:
            asked = [{"role": "user", "content": "x"}]
            try:
                plain = self.tokenizer.render(asked, self.chat.tools)
                prompted = self.tokenizer.render(asked, self.chat.tools, generation_prompt=True)
            except RefusedChat:
                plain = prompted = ""
            self._prompt = prompted[len(plain) :] if prompted.startswith(plain) else ""
        return self._prompt


def common(opening: str, text: str, start: int) -> int:
    """How much of the opening stands in the text at `start`."""
    there = text[start : start + len(opening)]
    return next((k for k, (a, b) in enumerate(zip(opening, there, strict=False)) if a != b), len(there))
