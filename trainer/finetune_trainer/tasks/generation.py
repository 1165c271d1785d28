"""A few prompts and what the model writes to them, greedily and bounded: for people to read in the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.chats.messages import chat_of, says_something
from finetune_trainer.tasks.completion import prompt_of

SAMPLES = 3
NEW_TOKENS = 40
CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given, and what the data answers."""

    text: str
    reference: str
    ids: list[int]


def answers(
    model: Any,
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    tokenizer: Tokenizer,
    *,
    ends: Container[int | None],
    max_length: int,
    stop: Callable[[], bool],
) -> list[dict[str, str]]:
    """A few prompts, what the data answers, and what the model writes."""
    chosen = prompts(rows, columns, tokenizer, SAMPLES, max_length - NEW_TOKENS)
    return [
        {
            "prompt": prompt.text,
            "reference": prompt.reference,
            "text": greedy(model, tokenizer, prompt.ids, NEW_TOKENS, stop, ends),
        }
        for prompt in chosen
    ]


def prompts(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], tokenizer: Tokenizer, count: int, longest: int
) -> list[Prompt]:
    """Up to `count` prompts of at most `longest` tokens, from the first rows: chats end before the assistant's last
    turn.
    """
    found: list[Prompt] = []
    for row in islice(rows, 50):
        prompt = _of_chat(row, columns, tokenizer) if "messages" in columns else _of_text(row, columns, tokenizer)
        if prompt is not None and prompt.ids and len(prompt.ids) <= longest:
            found.append(prompt)
        if len(found) == count:
            break
    return found


def _of_chat(row: Mapping[str, Any], columns: Mapping[str, str], tokenizer: Tokenizer) -> Prompt | None:
    chat = chat_of(row[columns["messages"]], row.get(columns.get("tools", "")), tokenizer)
    last = max(i for i, m in enumerate(chat.messages) if m["role"] == "assistant" and says_something(m))
    if last == 0:
        return None
    asked, answer = chat.messages[last - 1], chat.messages[last]
    try:
        ids = tokenizer.ids(chat.render(tokenizer, last, generation_prompt=True))
    except RefusedChat:
        return None
    return Prompt(_words(asked), _words(answer), ids)


def _of_text(row: Mapping[str, Any], columns: Mapping[str, str], tokenizer: Tokenizer) -> Prompt:
    text = prompt_of(row, columns)
    return Prompt(text[:CHARACTERS], row[columns["completion"]][:CHARACTERS], tokenizer.start(text))


def _words(message: Mapping[str, Any]) -> str:
    """What the message says, for people; its calls as JSON."""
    calls = message.get("tool_calls")
    parts = [message.get("content") or "", json.dumps(calls, ensure_ascii=False) if calls else ""]
    return "\n".join(filter(None, parts))[:CHARACTERS]


def greedy(
    model: Any,
    tokenizer: Tokenizer,
    ids: list[int],
    new_tokens: int,
    stop: Callable[[], bool],
    ends: Container[int | None] = (),
) -> str:
    """The most likely continuation, up to one of the tokens that end a turn.

    The model is left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    text: list[int] = []
    given, cache = torch.tensor([ids], device=device), None
    try:
        while len(text) < new_tokens and not stop():
            answer = model(input_ids=given, past_key_values=cache, use_cache=True)
            token = int(answer.logits[0, -1].argmax())
            if token in ends:
                break
            text.append(token)
            given, cache = torch.tensor([[token]], device=device), answer.past_key_values
    finally:
        model.train(was_training)
    return tokenizer.decode(text, skip_special=True)[:CHARACTERS]
