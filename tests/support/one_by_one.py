"""The slow, plain way to find what the assistant wrote, as an oracle: three whole renderings for each of its turns.

It is for templates that show every turn, and chats that do not begin with the assistant; turns must have a content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_trainer.model.tokenizer import Tokenizer

MARKER = "\x01\x02\x03"
Messages = Sequence[Mapping[str, Any]]
Span = tuple[int, int]


def render(tokenizer: Tokenizer, messages: Messages, *, generation_prompt: bool = False) -> str:
    """By transformers' own door."""
    given = [dict(m) for m in messages]
    found = tokenizer.hf.apply_chat_template(given, tokenize=False, add_generation_prompt=generation_prompt)
    assert isinstance(found, str)
    return found


def encode(tokenizer: Tokenizer, messages: Messages) -> tuple[list[int], list[int]]:
    """Ids, and labels on the assistant's tokens (else -100)."""
    text = render(tokenizer, messages)
    ids, offsets = tokenizer.with_offsets(text)
    targets = [-100] * len(ids)
    for begin, end in spans(tokenizer, messages, text):
        inside = [k for k, (a, b) in enumerate(offsets) if begin <= a < end and b > a]
        special = [n for n, k in enumerate(inside) if ids[k] in tokenizer.special_ids]
        if special and not tokenizer.decode([ids[k] for k in inside[special[-1] + 1 :]]).strip():
            inside = inside[: special[-1] + 1]
        for k in inside:
            targets[k] = ids[k]
    if messages[-1]["role"] == "assistant" and targets[-1] != -100 and ids[-1] not in tokenizer.special_ids:
        assert tokenizer.eos_id is not None
        ids, targets = [*ids, tokenizer.eos_id], [*targets, tokenizer.eos_id]
    return ids, targets


def spans(tokenizer: Tokenizer, messages: Messages, text: str) -> list[Span]:
    """Where each turn of the assistant stands."""
    found = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            span = _by_prefix(tokenizer, messages, i, text) or _by_marker(tokenizer, messages, i, text)
            assert span is not None, f"message {i} is not shown"
            found.append(span)
    return found


def _by_prefix(tokenizer: Tokenizer, messages: Messages, i: int, text: str) -> Span | None:
    before, prompt = render(tokenizer, messages[:i]), render(tokenizer, messages[:i], generation_prompt=True)
    after = text if i == len(messages) - 1 else render(tokenizer, messages[: i + 1])
    if not (text.startswith(before) and text.startswith(after)):
        return None
    begin = next((k for k, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), min(len(prompt), len(text)))
    if begin < len(before) or messages[i]["content"].strip() not in text[begin : len(after)]:
        return None
    return begin, len(after)


def _by_marker(tokenizer: Tokenizer, messages: Messages, i: int, text: str) -> Span | None:
    marked = [dict(m) | ({"content": MARKER} if k == i else {}) for k, m in enumerate(messages)]
    head, found, _ = render(tokenizer, marked).partition(MARKER)
    content = messages[i]["content"].strip()
    if not found or not text.startswith(head) or not text[len(head) :].lstrip().startswith(content):
        return None
    end = text.index(content, len(head)) + len(content)
    return len(head), tokenizer.end_of_special(text, end)
