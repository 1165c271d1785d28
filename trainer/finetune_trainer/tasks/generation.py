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
from finetune_trainer.tasks.base import Sampling
from finetune_trainer.tasks.chats.messages import chat_of, says_something
from finetune_trainer.tasks.completion import prompt_of

SAMPLES = 3
NEW_TOKENS = 40
CHARACTERS = 600
LONGEST_ANSWER = 256
"""Tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given, and what the data answers."""

    text: str
    reference: str
    ids: list[int]


def answers(model: Any, rows: Iterable[Mapping[str, Any]], given: Sampling) -> list[dict[str, str]]:
    """A few prompts, what the data answers, and what the model writes."""
    chosen = prompts(rows, given.facts.columns, given.tokenizer, SAMPLES, given.max_length - NEW_TOKENS)
    return [
        {
            "prompt": prompt.text,
            "reference": prompt.reference,
            "text": _text(greedy(model, prompt.ids, NEW_TOKENS, given.stop, given.ends), given.tokenizer)[:CHARACTERS],
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


def asked_and_answered(row: Mapping[str, Any], columns: Mapping[str, str], tokenizer: Tokenizer) -> tuple[str, str]:
    """What a row asks and what it answers, for people; of a chat its last question and the answer to that."""
    if "messages" not in columns:
        return prompt_of(row, columns), row[columns["completion"]]
    messages = chat_of(row[columns["messages"]], row.get(columns.get("tools", "")), tokenizer).messages
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return _words(messages[last - 1]) if last else "", _words(messages[last])


def _words(message: Mapping[str, Any]) -> str:
    """What the message says, for people; its calls as JSON."""
    calls = message.get("tool_calls")
    parts = [message.get("content") or "", json.dumps(calls, ensure_ascii=False) if calls else ""]
    return "\n".join(filter(None, parts))[:CHARACTERS]


def written(
    model: Any, row: Mapping[str, Any], columns: Mapping[str, str], tokenizer: Tokenizer, longest: int
) -> dict[str, Any]:
    """{text, ended} that the model writes to a row's prompt, of up to LONGEST_ANSWER tokens; ended: by itself, not by
    that bound. A chat whose last turn is the assistant's is answered anew from there on. {text: None, problem} where
    it cannot be asked.
    """
    try:
        ids = _asked(row, columns, tokenizer)
    except RefusedChat as error:
        return {"text": None, "problem": str(error)}
    room = min(LONGEST_ANSWER, longest - len(ids))
    if not ids or room <= 0:
        return {
            "text": None,
            "problem": f"the prompt has {len(ids)} tokens, and the model takes {longest} with its answer",
        }
    known = getattr(model.generation_config, "eos_token_id", None)
    ends = {*(known if isinstance(known, list) else [known]), tokenizer.eos_id}
    found = greedy(model, ids, room, lambda: False, ends)
    return {"text": _text(found, tokenizer), "ended": len(found) < room}


def _asked(row: Mapping[str, Any], columns: Mapping[str, str], tokenizer: Tokenizer) -> list[int]:
    """The ids of a row's prompt. Raises RefusedChat."""
    if "messages" not in columns:
        return tokenizer.start(prompt_of(row, columns))
    chat = chat_of(row[columns["messages"]], row.get(columns.get("tools", "")), tokenizer)
    count = len(chat.messages) - (chat.messages[-1]["role"] == "assistant")
    return tokenizer.ids(chat.render(tokenizer, count, generation_prompt=True)) if count else []


def _text(ids: list[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode(ids, skip_special=True)


def greedy(
    model: Any, ids: list[int], new_tokens: int, stop: Callable[[], bool], ends: Container[int | None] = ()
) -> list[int]:
    """The most likely continuation, up to one of the tokens that end a turn, without it.

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
    return text
