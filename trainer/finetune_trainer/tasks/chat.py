"""Find what the assistant wrote in a rendered chat, for any template: no generation markers are needed.

For the assistant's turn i three renderings are compared with the whole: the turns before it, those with the generation
prompt (what the model sees at inference), and those up to and with it. Templates that rewrite earlier turns (that drop
past reasoning, say) are not prefixes of themselves; there the turn is found by rendering the chat with its content
replaced. A turn that cannot be found raises: a mask is never guessed (I8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_trainer.model.tokenizer import RefusedChat, Tokenizer
from finetune_trainer.tasks.base import IGNORE, Unlearnable

ROLES = ("system", "developer", "user", "assistant", "tool")
MARKER = "\x01\x02\x03"
"""Stands in for a turn's content; no tokenizer's template handles control characters."""

Messages = Sequence[Mapping[str, Any]]
Span = tuple[int, int]


def messages_problem(value: Any, column: str) -> str | None:
    """What is wrong with a chat, or None."""
    if not isinstance(value, list | tuple) or not value:
        return f"column {column!r} must hold a list of {{role, content}} messages"
    for i, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            return (
                f'column {column!r}, message {i}: needs a role and a content of text; write {{"role": …, "content": …}}'
            )
        if message.get("role") not in ROLES:
            return f"column {column!r}, message {i}: role {message.get('role')!r} is not one of {', '.join(ROLES)}; rename it"
    if not any(m["role"] == "assistant" and m["content"].strip() for m in value):
        return f"column {column!r}: no message of the assistant has a text: nothing to learn; add one, or leave the row out"
    return None


def encode_chat(tokenizer: Tokenizer, messages: Messages) -> tuple[list[int], list[int]]:
    """Ids of the whole rendered chat and labels on the assistant's tokens, the end of its turns included.

    Special tokens come from the template alone, as at inference, so a BOS is never doubled. Raises Unlearnable when the
    template refuses the chat, or hides a turn.
    """
    try:
        text = tokenizer.render(messages)
        spans = assistant_spans(tokenizer, messages, text)
    except RefusedChat as error:
        raise Unlearnable(str(error)) from None
    ids, offsets = tokenizer.with_offsets(text)
    targets = [IGNORE] * len(ids)
    for begin, end in spans:
        inside = [k for k, (a, b) in enumerate(offsets) if begin <= a < end and b > a]
        inside = _until_end_of_turn(inside, ids, tokenizer, text[begin:end])
        for k in inside:
            targets[k] = ids[k]
    last_is_learned = messages[-1]["role"] == "assistant" and targets and targets[-1] != IGNORE
    if last_is_learned and ids[-1] not in tokenizer.special_ids and tokenizer.eos_id is not None:
        ids, targets = [*ids, tokenizer.eos_id], [*targets, tokenizer.eos_id]
    return ids, targets


def _until_end_of_turn(inside: list[int], ids: list[int], tokenizer: Tokenizer, text: str) -> list[int]:
    """Drop blank tokens after the last special token of the turn: generation stops there, nobody ever writes them."""
    specials = [n for n, k in enumerate(inside) if ids[k] in tokenizer.special_ids]
    if specials and not tokenizer.decode([ids[k] for k in inside[specials[-1] + 1 :]]).strip():
        return inside[: specials[-1] + 1]
    return inside


def assistant_spans(tokenizer: Tokenizer, messages: Messages, text: str) -> list[Span]:
    """Where in `text` (the whole chat rendered) each non-empty turn of the assistant stands, its end-of-turn token included.

    Raises Unlearnable when the template hides a turn, RefusedChat when it refuses a part of the chat.
    """
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or not message["content"].strip():
            continue
        span = _by_prefix(tokenizer, messages, i, text) or _by_marker(tokenizer, messages, i, text)
        if span is None:
            raise Unlearnable(
                f"the chat template does not render message {i} in a way that can be told from the rest; "
                "use a template that renders every turn, or shorten the chat to one turn"
            )
        spans.append(span)
    return spans


def _by_prefix(tokenizer: Tokenizer, messages: Messages, i: int, text: str) -> Span | None:
    before = tokenizer.render(messages[:i]) if i else ""
    prompt = tokenizer.render(messages[:i], generation_prompt=True) if i else ""
    after = text if i == len(messages) - 1 else tokenizer.render(messages[: i + 1])
    if not (text.startswith(before) and text.startswith(after)):
        return None
    begin = _common_length(prompt, text)
    content = messages[i]["content"].strip()
    if begin < len(before) or content not in text[begin : len(after)]:
        return None
    return begin, len(after)


def _common_length(a: str, b: str) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _by_marker(tokenizer: Tokenizer, messages: Messages, i: int, text: str) -> Span | None:
    """The content's place by replacing it, then on to the end of the special token that follows it."""
    marked = [dict(m) | ({"content": MARKER} if k == i else {}) for k, m in enumerate(messages)]
    head, found, _ = tokenizer.render(marked).partition(MARKER)
    content = messages[i]["content"].strip()
    if not found or not text.startswith(head) or not text[len(head) :].lstrip().startswith(content):
        return None
    end = text.index(content, len(head)) + len(content)
    return len(head), tokenizer.end_of_special(text, end)
