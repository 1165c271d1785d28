"""Words with tags, and texts with spans."""

from __future__ import annotations

from collections import Counter
from typing import Any

from finetune_api.tasks import usual_names
from finetune_api.values import listed_in
from finetune_cli.init.guesses.base import Guess, Rows

TOKENS, SPANS = usual_names("tokens"), usual_names("spans")
TEXTS = usual_names("text")
LOOKED_AT = 50


def entities(rows: Rows, names: list[str]) -> Guess | None:
    """Two lists of one length, the first of words; or a text beside a list of start, end and label."""
    rows = rows[:LOOKED_AT]
    return _words(rows, names) or _spans(rows, names)


def _words(rows: Rows, names: list[str]) -> Guess | None:
    lists = {
        name: found for name in names if (found := [listed_in(row.get(name)) for row in rows]) and None not in found
    }
    words = [n for n in lists if n.lower() in TOKENS and _hold(lists[n], str)]
    usual = usual_names("tags")
    for tokens in words:
        fit = [
            n for n in lists if n != tokens and _same_lengths(lists[n], lists[tokens]) and _hold(lists[n], str | int)
        ]
        named = [n for wanted in usual for n in fit if n.lower() == wanted]
        for tags in named or fit:
            counts = Counter(str(tag) for found in lists[tags] for tag in found or ())
            reasons = (f"{tokens} holds the words of each text", f"{tags} holds a tag for each of them")
            return Guess({"tokens": tokens, "tags": tags}, reasons, dict(counts.most_common()))
    return None


def _spans(rows: Rows, names: list[str]) -> Guess | None:
    texts = [n for n in names if all(isinstance(row.get(n), str) for row in rows)]
    for spans in names:
        found = [listed_in(row.get(spans)) for row in rows]
        marked = [span for each in found for span in each or ()]
        if None in found or not marked or not all(_is_span(span) for span in marked):
            continue
        named = [n for wanted in TEXTS for n in texts if n.lower() == wanted and n != spans]
        for text in named or [n for n in texts if n != spans]:
            counts = Counter(str(_label(span)) for span in marked)
            reasons = (f"{spans} holds start, end and label of what is marked in {text}",)
            return Guess({"text": text, "spans": spans}, reasons, dict(counts.most_common()))
    return None


def _hold(lists: list[Any], kind: Any) -> bool:
    return all(isinstance(each, kind) for found in lists for each in found)


def _same_lengths(some: list[Any], others: list[Any]) -> bool:
    return all(len(a) == len(b) for a, b in zip(some, others, strict=True))


def _is_span(span: Any) -> bool:
    if isinstance(span, dict):
        return {"start", "end", "label"} <= span.keys()
    return isinstance(span, list) and len(span) == 3 and all(isinstance(edge, int) for edge in span[:2])


def _label(span: Any) -> Any:
    return span["label"] if isinstance(span, dict) else span[2]
