"""Texts and their classes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from finetune_api.forms import one_form
from finetune_cli.init.guesses.base import Guess, Rows, few
from finetune_cli.terminal import Stop

TEXTS = (
    "text",
    "body",
    "sentence",
    "content",
    "review",
    "message",
    "document",
    "comment",
    "tweet",
    "question",
    "title",
)
LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "sentiment",
    "intent",
    "topic",
    "tag",
    "rating",
    "is_spam",
    "spam",
)
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
)


def classification(rows: Rows, names: list[str], label: str | None, text: str | None) -> Guess:
    """The columns of text and class that are likeliest; `label` and `text`: named by the user. Raises Stop."""
    reasons = []
    if label is None:
        label, reason = _label(rows, [n for n in names if n != text])
        reasons.append(reason)
    texts = [n for n in texts_of(rows, names) if n != label]
    columns = {"label": label}
    if text is not None:
        columns["text"] = text
    elif not texts:
        raise Stop(
            "no column holds texts in all rows", hint=f"The columns are {', '.join(names)}; name it with --text."
        )
    else:
        pair = next(((a, b) for a, b in PAIRS if a in texts and b in texts), None)
        columns["text"] = pair[0] if pair else text_column(rows, texts)
        if pair:
            columns["textPair"] = pair[1]
        reasons.append(f"{' and '.join(pair)} are a pair of texts" if pair else f"{columns['text']} holds the texts")
    classes = Counter(_class(row[label]) for row in rows if row.get(label) not in (None, ""))
    ordered: dict[str, str] = {role: columns[role] for role in ("text", "textPair", "label") if role in columns}
    return Guess(ordered, tuple(reasons), dict(classes.most_common()))


def _class(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else one_form(str(value))


def class_columns(rows: Rows, names: list[str]) -> list[str]:
    """The columns that may hold classes, the likeliest first."""
    usable = [
        n
        for n in names
        if any(isinstance(row.get(n), str | int) for row in rows)
        and not any(isinstance(row.get(n), list | dict) for row in rows)
    ]
    by_name = [n for n in usable if n.lower() in LABELS]
    by_values = [n for n in usable if len({str(row.get(n)) for row in rows}) > 1 and few(rows, n)]
    return [*[n for n in by_name if n in by_values], *by_values, *by_name]


def texts_of(rows: Rows, names: list[str]) -> list[str]:
    """The columns that hold texts in all rows."""
    return [n for n in names if all(isinstance(row.get(n), str) for row in rows)]


def texts_as_roles(rows: Rows, names: list[str]) -> dict[str, str]:
    """text, and textPair where there is a pair; empty where no column holds texts in all rows."""
    texts = texts_of(rows, names)
    pair = next(((a, b) for a, b in PAIRS if a in texts and b in texts), None)
    if pair:
        return {"text": pair[0], "textPair": pair[1]}
    return {"text": text_column(rows, texts)} if texts else {}


def _label(rows: Rows, names: list[str]) -> tuple[str, str]:
    for name in class_columns(rows, names):
        count = len({str(row.get(name)) for row in rows})
        return name, f"{name} holds the classes: {count} different values in {len(rows)} rows"
    raise Stop(
        "no column holds classes, chats, or prompts with completions",
        hint=f"The columns are {', '.join(names)}; name them with --text and --label.",
    )


def text_column(rows: Rows, texts: list[str]) -> str:
    """The likeliest of columns that hold texts."""
    named = [n for wanted in TEXTS for n in texts if n.lower() == wanted]
    longest = max(texts, key=lambda n: sum(len(row[n]) for row in rows))
    average = {n: sum(len(row[n]) for row in rows) / len(rows) for n in texts}
    return named[0] if named and average[named[0]] * 4 >= average[longest] else longest
