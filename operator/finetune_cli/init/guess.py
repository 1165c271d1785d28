"""Guess task, columns and classes from a data file's first rows; each guess comes with its reason, to be checked by a
person.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from finetune_api.forms import one_form
from finetune_api.tasks import TaskInfo, task_reading, usual_names
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
TOOLS = usual_names("tools")
MOST_CLASSES = 256


@dataclass(frozen=True, slots=True)
class Guess:
    """What the data seems to be for."""

    columns: dict[str, str]  # role -> column
    reasons: tuple[str, ...]
    classes: dict[str, int]  # class -> rows of the sample

    @property
    def task(self) -> TaskInfo:
        """The task whose rows are made of such columns."""
        return task_reading(self.columns)


def guess(rows: list[dict[str, Any]], *, label: str | None = None, text: str | None = None) -> Guess:
    """The most likely use of the rows. `label` and `text` are what the user knows better.

    Raises Stop if nothing fits.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    label, text = (given and one_form(given) for given in (label, text))
    for given in (label, text):
        if given is not None and given not in names:
            raise Stop(f"no column {given}", hint=f"The columns are {', '.join(names)}.")
    if label is None and text is None:
        for attempt in (_chat, _prompt):
            found = attempt(rows, names)
            if found:
                return found
    return _classification(rows, names, label, text)


def _chat(rows: list[dict[str, Any]], names: list[str]) -> Guess | None:
    for name in names:
        values = [row.get(name) for row in rows]
        if all(_is_chat(value) for value in values):
            tools = [n for n in names if n.lower() in TOOLS and n != name]
            reasons = [
                f"{name} holds chats: lists of role and content",
                *(f"{n} holds what they may call" for n in tools),
            ]
            return Guess({"messages": name} | ({"tools": tools[0]} if tools else {}), tuple(reasons), {})
        if all(isinstance(v, list) and v and isinstance(v[0], dict) and {"from", "value"} <= set(v[0]) for v in values):
            raise Stop(
                f"{name} holds chats as from and value",
                hint='Write each turn as {"role": "user" or "assistant", "content": …} instead.',
            )
    return None


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(turn, dict) and "role" in turn and ("content" in turn or turn.get("tool_calls"))
            for turn in value
        )
    )


def _prompt(rows: list[dict[str, Any]], names: list[str]) -> Guess | None:
    lower = {name.lower(): name for name in names}
    for prompt, completion in PROMPTS:
        if prompt in lower and completion in lower:
            pair = (lower[prompt], lower[completion])
            if all(isinstance(row.get(name), str) for row in rows for name in pair) and not _few(rows, pair[1]):
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
                return Guess(roles, tuple(reasons), {})
    return None


def _few(rows: list[dict[str, Any]], name: str) -> bool:
    """Whether the values repeat as classes do."""
    distinct = {str(row.get(name)) for row in rows}
    return len(distinct) <= max(2, min(MOST_CLASSES, len(rows) // 4))


def _classification(rows: list[dict[str, Any]], names: list[str], label: str | None, text: str | None) -> Guess:
    reasons = []
    if label is None:
        label, reason = _label(rows, [n for n in names if n != text])
        reasons.append(reason)
    texts = [n for n in names if n != label and all(isinstance(row.get(n), str) for row in rows)]
    columns = {"label": label}
    if text is not None:
        columns["text"] = text
    elif not texts:
        raise Stop(
            "no column holds texts in all rows", hint=f"The columns are {', '.join(names)}; name it with --text."
        )
    else:
        pair = next(((a, b) for a, b in PAIRS if a in texts and b in texts), None)
        columns["text"] = pair[0] if pair else _text(rows, texts)
        if pair:
            columns["textPair"] = pair[1]
        reasons.append(f"{' and '.join(pair)} are a pair of texts" if pair else f"{columns['text']} holds the texts")
    classes = Counter(_class(row[label]) for row in rows if row.get(label) not in (None, ""))
    ordered: dict[str, str] = {role: columns[role] for role in ("text", "textPair", "label") if role in columns}
    return Guess(ordered, tuple(reasons), dict(classes.most_common()))


def _class(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else one_form(str(value))


def _label(rows: list[dict[str, Any]], names: list[str]) -> tuple[str, str]:
    usable = [
        n
        for n in names
        if any(isinstance(row.get(n), str | int) for row in rows)
        and not any(isinstance(row.get(n), list | dict) for row in rows)
    ]
    by_name = [n for n in usable if n.lower() in LABELS]
    by_values = [n for n in usable if len({str(row.get(n)) for row in rows}) > 1 and _few(rows, n)]
    for name in (*[n for n in by_name if n in by_values], *by_values, *by_name):
        count = len({str(row.get(name)) for row in rows})
        return name, f"{name} holds the classes: {count} different values in {len(rows)} rows"
    raise Stop(
        "no column holds classes, chats, or prompts with completions",
        hint=f"The columns are {', '.join(names)}; name them with --text and --label.",
    )


def _text(rows: list[dict[str, Any]], texts: list[str]) -> str:
    named = [n for wanted in TEXTS for n in texts if n.lower() == wanted]
    longest = max(texts, key=lambda n: sum(len(row[n]) for row in rows))
    average = {n: sum(len(row[n]) for row in rows) / len(rows) for n in texts}
    return named[0] if named and average[named[0]] * 4 >= average[longest] else longest
