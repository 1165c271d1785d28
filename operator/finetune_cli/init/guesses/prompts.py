"""A prompt and its completion."""

from __future__ import annotations

from finetune_api.tasks import usual_names
from finetune_cli.init.guesses.base import Guess, Rows, few

PROMPTS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
    ("source", "target"),
)
CONTEXTS = usual_names("context")
"""A text that the prompt is about, as in Alpaca's and Dolly's sets; empty in many rows."""


def prompts(rows: Rows, names: list[str]) -> Guess | None:
    """Two columns of texts that usually go together."""
    lower = {name.lower(): name for name in names}
    for prompt, completion in PROMPTS:
        if prompt in lower and completion in lower:
            pair = (lower[prompt], lower[completion])
            if all(isinstance(row.get(name), str) for row in rows for name in pair) and not few(rows, pair[1]):
                context = [
                    n
                    for n in names
                    if n.lower() in CONTEXTS
                    and n not in pair
                    and all(isinstance(row.get(n) or "", str) for row in rows)
                ][:1]
                reasons = [
                    f"{pair[1]} is a text that answers {pair[0]}",
                    *(f"{n} is what {pair[0]} is about" for n in context),
                ]
                roles = {"prompt": pair[0]} | ({"context": context[0]} if context else {}) | {"completion": pair[1]}
                return Guess(roles, tuple(reasons))
    return None
