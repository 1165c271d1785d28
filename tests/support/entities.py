"""Small texts with entities that a tiny model can learn: prizes and papers, of one to three words each."""

from __future__ import annotations

import random
from typing import Any

from support.models import HAM, NEUTRAL, SPAM

LABELS = ("O", "B-PAPER", "I-PAPER", "B-PRIZE", "I-PRIZE")


def tagged(count: int, seed: int = 0, words: tuple[int, int] = (6, 20)) -> list[dict[str, Any]]:
    """Rows {tokens, tags}; a word's own list tells its type, and entities never touch."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        tokens: list[str] = []
        tags: list[str] = []
        length = rng.randint(*words)
        while len(tokens) < length:
            neutral = rng.choices(NEUTRAL, k=rng.randint(1, 3))
            kind, own = rng.choice((("PAPER", HAM), ("PRIZE", SPAM)))
            entity = rng.choices(own, k=rng.randint(1, 3))
            tokens += neutral + entity
            tags += ["O"] * len(neutral) + [f"B-{kind}"] + [f"I-{kind}"] * (len(entity) - 1)
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def marked(count: int, seed: int = 0, words: tuple[int, int] = (6, 20)) -> list[dict[str, Any]]:
    """The same as {text, spans}."""
    rows = []
    for row in tagged(count, seed, words):
        text, spans, at = " ".join(row["tokens"]), list[dict[str, Any]](), 0
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            if tag.startswith("B-"):
                spans.append({"start": at, "end": at + len(token), "label": tag[2:]})
            elif tag.startswith("I-"):
                spans[-1]["end"] = at + len(token)
            at += len(token) + 1
        rows.append({"text": text, "spans": spans})
    return rows
