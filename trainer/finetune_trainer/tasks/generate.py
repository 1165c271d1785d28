"""A few prompts and what the model writes to them, greedily and bounded: for people to read in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from finetune_trainer.model.tokenizer import Tokenizer

CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given, and what the data answers."""

    text: str
    reference: str
    ids: list[int]


def prompts(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], tokenizer: Tokenizer, count: int, longest: int
) -> list[Prompt]:
    """Up to `count` prompts of at most `longest` tokens, from the first rows: chats end before the assistant's last turn."""
    found: list[Prompt] = []
    for row in islice(rows, 50):
        if "messages" in columns:
            messages = list(row[columns["messages"]])
            last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
            if last == 0:
                continue
            text, reference = messages[last - 1]["content"], messages[last]["content"]
            ids = tokenizer.ids(tokenizer.render(messages[:last], generation_prompt=True))
        else:
            text, reference = row[columns["prompt"]], row[columns["completion"]]
            ids = tokenizer.start(text)
        if ids and len(ids) <= longest:
            found.append(Prompt(text[:CHARACTERS], reference[:CHARACTERS], ids))
        if len(found) == count:
            break
    return found


def greedy(model: Any, tokenizer: Tokenizer, ids: list[int], new_tokens: int, stop: Callable[[], bool]) -> str:
    """The most likely continuation, up to the end-of-text token. The model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    text: list[int] = []
    given, cache = torch.tensor([ids], device=device), None
    try:
        while len(text) < new_tokens and not stop():
            answer = model(input_ids=given, past_key_values=cache, use_cache=True)
            token = int(answer.logits[0, -1].argmax())
            if token == tokenizer.eos_id:
                break
            text.append(token)
            given, cache = torch.tensor([[token]], device=device), answer.past_key_values
    finally:
        model.train(was_training)
    return tokenizer.decode(text, skip_special=True)[:CHARACTERS]
