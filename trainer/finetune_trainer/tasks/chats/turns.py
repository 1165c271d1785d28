"""Where the assistant's turns stand in a rendered chat, for any template: no generation markers are needed.

One turn is located by rendering: the chat up to it, the same with the generation prompt (what the model sees at
inference), and the chat up to and with it. Three renderings a turn would be quadratic, so only the first turn of each
kind is located so. For the others the messages around them are found in one rendering with their contents replaced, and
they are cut where the first one was, if the same text of the template stands around them, but for numbers and what is
said of the messages beside their contents (the id of a call): there a second turn must confirm the cut. Where the
template alters what others wrote, or what the assistant did where its turns follow each other, turns are located by
themselves, exactly but slowly; a warning says so once.

Templates that rewrite earlier turns (that drop past reasoning, say) are not prefixes of themselves: there a turn begins
at its own words, and ends where the rest of its own rendering does. A turn that is not shown whole is hidden: never
guessed (I8).
"""

from __future__ import annotations

import logging
import re
from functools import cache
from itertools import pairwise

from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.chats.cuts import Cut, fields_around, spellings
from finetune_trainer.tasks.chats.messages import Chat, Message, called, says_something
from finetune_trainer.tasks.chats.one_turn import OneByOne, Span

log = logging.getLogger(__name__)
FEW = 3
"""So many turns are quicker located one by one."""
KINDS = 24
"""More turns than this of one chat located one by one are not the first two of their kinds any more."""


def assistant_turns(tokenizer: Tokenizer, chat: Chat, text: str) -> list[Span | None]:
    """The place in `text` (the whole chat rendered) of each turn of the assistant that says something, its end
    included.

    None for a turn that the template does not show whole.
    """
    numbers = [i for i, m in enumerate(chat.messages) if m["role"] == "assistant" and says_something(m)]
    one = OneByOne(tokenizer, chat, text)
    places = None
    if len(numbers) > FEW:
        if any(j - i == 1 for i, j in pairwise(numbers)):
            places = _contents(tokenizer, chat, text, own=True)
        places = places or _contents(tokenizer, chat, text)
    if places is None:
        spans = {i: one.span(i) for i in numbers}
    else:
        spans = _by_kind(one, places, numbers)
    if one.turns > KINDS:
        _warn_once_of_slowness()
    return [span if span and _whole(chat.messages[i], text[span[0] : span[1]]) else None for i, span in spans.items()]


@cache
def _warn_once_of_slowness() -> None:
    """Once a process."""
    log.warning(
        "turns of the assistant are located one by one, which is slow for long chats: the chat template alters what"
        " others wrote, or writes something else into each turn, or alters turns of the assistant that follow each"
        " other"
    )


def _whole(message: Message, shown: str) -> bool:
    """Whether all that the turn says is shown, whatever white space the template puts in between."""
    content = (message.get("content") or "").strip()
    return _shows(shown, content) and all(name in shown for name in called(message))


def _shows(shown: str, content: str) -> bool:
    return content in shown or "".join(content.split()) in "".join(shown.split())


def _by_kind(one: OneByOne, places: dict[int, Span], numbers: list[int]) -> dict[int, Span | None]:
    """The turns' places; those with the same neighbours are cut like the first of them."""
    text, messages = one.text, one.chat.messages
    known: dict[tuple[str, str | None, bool, bool], Cut] = {}
    confirmed = set()
    spans: dict[int, Span | None] = {}
    for i in numbers:
        following = places.get(i + 1) if i + 1 < len(messages) else (len(text), len(text))
        if i - 1 not in places or following is None:
            spans[i] = one.span(i)
            continue
        left, right = places[i - 1][1], following[0]
        content = messages[i].get("content") or ""
        if not _shows(text[left:right], content):
            spans[i] = None
            continue
        role_after = messages[i + 1]["role"] if i + 1 < len(messages) else None
        kind = (messages[i - 1]["role"], role_after, bool(content.strip()), "tool_calls" in messages[i])
        cut = known.get(kind)
        found = cut.span(text, left, right, content, fields_around(messages, i)) if cut else None
        if found and kind in confirmed:
            spans[i] = found
            continue
        spans[i], made = Cut.like(one, i, left, right)
        if found and found == spans[i]:
            confirmed.add(kind)
        elif made:
            known[kind] = made
            (confirmed.discard if made.gapped else confirmed.add)(kind)
    return spans


def _contents(tokenizer: Tokenizer, chat: Chat, text: str, *, own: bool = False) -> dict[int, Span] | None:
    """Where the words of the others stand in the text, and the assistant's `own`, by the message's number.

    None where the template alters them: one rendering with their contents replaced gives the text in between, which
    must be found again to the last character.
    """
    begin, end = "\ue000", "\ue001"  # private characters: they pass through trimming and JSON as they are
    replaced = [
        {**m, "content": f"{begin}{j}{end}"} if m["role"] != "assistant" or (own and m.get("content")) else m
        for j, m in enumerate(chat.messages)
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
        said = spellings(chat.messages[number]["content"])
        words = next((w for w in said if text.startswith(w + following, at)), None)
        if words is None:
            return None
        places[number] = (at, at + len(words))
        at += len(words) + len(following)
    return places if at == len(text) else None
