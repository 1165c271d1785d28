"""Where the assistant's turns stand in a rendered chat, for any template: no generation markers are needed.

One turn is located by rendering: the chat up to it, the same with the generation prompt (what the model sees at inference),
and the chat up to and with it. Three renderings a turn would be quadratic, so only the first turn of each kind is located
so. For the others the messages around them are found in one rendering with their contents replaced, and they are cut where
the first one was, if exactly the same text of the template stands around them. Where it does not (templates that alter what
others wrote, number the turns, or put an id into each), every turn is located by itself, exactly but slowly; a warning says so once.

Templates that rewrite earlier turns (that drop past reasoning, say) are not prefixes of themselves: there a turn begins at
its own words, and ends where the rest of its own rendering does. A turn that is not shown whole is hidden: never guessed (I8).
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from functools import cache

from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.messages import Chat, Message, called, says_something

log = logging.getLogger(__name__)
FEW = 3
"""So many turns are quicker located one by one."""
KINDS = 12
"""More turns than this of one chat located one by one are not the first of their kinds any more."""
MARKER = "\x01\x02\x03"
"""Stands in for a turn's words; no tokenizer's template handles control characters."""

Span = tuple[int, int]


def assistant_turns(tokenizer: Tokenizer, chat: Chat, text: str) -> list[Span | None]:
    """The place in `text` (the whole chat rendered) of each turn of the assistant that says something, its end included.

    None for a turn that the template does not show whole.
    """
    numbers = [i for i, m in enumerate(chat.messages) if m["role"] == "assistant" and says_something(m)]
    exact = _Exact(tokenizer, chat, text)
    places = _contents(tokenizer, chat, text) if len(numbers) > FEW else None
    if places is None:
        spans = {i: exact.span(i) for i in numbers}
    else:
        spans = _by_kind(exact, places, numbers)
    if exact.turns > KINDS:
        _tell_that_it_is_slow()
    return [span if span and _whole(chat.messages[i], text[span[0] : span[1]]) else None for i, span in spans.items()]


@cache
def _tell_that_it_is_slow() -> None:
    """Once a process."""
    log.warning(
        "turns of the assistant are located one by one, which is slow for long chats: the chat template alters what others wrote, "
        "or writes something else into each turn, or the assistant's turns follow each other"
    )


def _whole(message: Message, shown: str) -> bool:
    """Whether all that the turn says is shown, whatever white space the template puts in between."""
    content = (message.get("content") or "").strip()
    if content not in shown and _squeezed(content) not in _squeezed(shown):
        return False
    return all(name in shown for name in called(message))


def _squeezed(text: str) -> str:
    return "".join(text.split())


class _Exact:
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

    def located(self, i: int) -> _Place | None:
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
            begin = start + _common(opening, self.text, start)
        return _Place(start, opening, begin, end) if begin is not None and begin < end else None

    def closing(self, i: int, place: _Place) -> str | None:
        """What ends the turn behind its content; None where that is not told."""
        own = self._own_words(i)
        content = (self.chat.messages[i].get("content") or "").lstrip()
        words = next((w for w in (content, content.rstrip()) if own is not None and self.text.startswith(w, own)), None)
        return None if own is None or words is None else self.text[own + len(words) : place.end]

    def _part(self, count: int, *, generation_prompt: bool = False) -> str | None:
        try:
            return self.chat.render(self.tokenizer, count, generation_prompt=generation_prompt)
        except RefusedChat:
            return None  # the whole was not refused: only this part of it is no chat for the template

    def _marked(self, i: int, count: int | None = None) -> str:
        """What is rendered before the first words of turn i (its content, else the first function it calls); "" if they are hidden."""
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
        """Where turn i begins if what stands before it cannot be rendered: behind the generation prompt before its own words."""
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


@dataclass(frozen=True, slots=True)
class _Place:
    """A located turn. `start` is where the messages before it end (None: not to be told), `opening` the generation prompt there."""

    start: int | None
    opening: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the turns of a kind are cut from what stands between the words of the message before and of the one after.

    `tail` ends the message before, `opening` is the generation prompt, of which at least `shared` characters must stand
    there, `rest` begins the message after, and `closing` ends the turn behind its content (None: calls stand in between).
    """

    tail: str
    opening: str
    shared: int
    rest: str
    closing: str | None

    def span(self, text: str, left: int, right: int, content: str) -> Span | None:
        """The turn in text[left:right]; None where other text stands around it."""
        start, end = left + len(self.tail), right - len(self.rest)
        if start >= end or not text.startswith(self.tail, left) or not text.startswith(self.rest, end):
            return None
        if self.closing is not None and not any(
            text.startswith(words + self.closing, end - len(self.closing) - len(words)) for words in _spellings(content)
        ):
            return None
        shared = _common(self.opening, text, start)
        return (start + shared, end) if shared >= self.shared else None


def _by_kind(exact: _Exact, places: dict[int, Span], numbers: list[int]) -> dict[int, Span | None]:
    """The turns' places; those with the same neighbours are cut like the first of them."""
    text, messages = exact.text, exact.chat.messages
    known: dict[tuple[str, str | None, bool, bool], _Cut] = {}
    spans: dict[int, Span | None] = {}
    for i in numbers:
        following = places.get(i + 1) if i + 1 < len(messages) else (len(text), len(text))
        if i - 1 not in places or following is None:
            spans[i] = exact.span(i)
            continue
        left, right = places[i - 1][1], following[0]
        content = messages[i].get("content") or ""
        if _squeezed(content) not in _squeezed(text[left:right]):
            spans[i] = None
            continue
        role_after = messages[i + 1]["role"] if i + 1 < len(messages) else None
        kind = (messages[i - 1]["role"], role_after, bool(content.strip()), "tool_calls" in messages[i])
        cut = known.get(kind)
        spans[i] = cut.span(text, left, right, content) if cut else None
        if spans[i] is None:
            place = exact.located(i)
            spans[i] = (place.begin, place.end) if place else None
            if place is not None and place.start is not None and left <= place.start and place.end <= right:
                closing = None if "tool_calls" in messages[i] else exact.closing(i, place)
                shared = place.begin - place.start
                known[kind] = _Cut(text[left : place.start], place.opening, shared, text[place.end : right], closing)
    return spans


def _contents(tokenizer: Tokenizer, chat: Chat, text: str) -> dict[int, Span] | None:
    """Where the words of the others stand in the text, by the message's number; None where the template alters them.

    One rendering with their contents replaced gives the text in between, which must be found again to the last character.
    """
    begin, end = "\ue000", "\ue001"  # private characters: they pass through trimming and JSON as they are
    replaced = [
        m if m["role"] == "assistant" else {**m, "content": f"{begin}{j}{end}"} for j, m in enumerate(chat.messages)
    ]
    try:
        parts = re.split(f"{begin}([0-9]+){end}", tokenizer.render(replaced, chat.tools))
    except RefusedChat:
        return None
    numbers = [int(number) for number in parts[1::2]]
    if begin in text or numbers != sorted(set(numbers)) or not text.startswith(parts[0]):
        return None
    places, at = {}, len(parts[0])
    for number, following in zip(numbers, parts[2::2], strict=True):
        words = next(
            (w for w in _spellings(chat.messages[number]["content"]) if text.startswith(w + following, at)), None
        )
        if words is None:
            return None
        places[number] = (at, at + len(words))
        at += len(words) + len(following)
    return places if at == len(text) else None


def _spellings(content: str) -> tuple[str, ...]:
    """How templates write a content: as it is, trimmed, as JSON."""
    return content, content.strip(), content.lstrip(), content.rstrip(), json.dumps(content, ensure_ascii=False)[1:-1]


def _common(opening: str, text: str, start: int) -> int:
    """How much of the opening stands in the text at `start`."""
    there = text[start : start + len(opening)]
    return next((k for k, (a, b) in enumerate(zip(opening, there, strict=False)) if a != b), len(there))
