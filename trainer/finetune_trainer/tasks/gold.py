"""The right answers of a row, in the forms in which data sets have them, checked against the context.

SQuAD's {"text": [...], "answer_start": [...]}, a list of {text, start}, either as JSON text, or one answer in a column
of its own. White space around an answer is no part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.forms import one_form
from finetune_trainer.tasks.base import Row

FORMS = 'write {"text": [...], "answer_start": [...]}, or a list of {"text": ..., "start": ...}; [] where there is none'
LOOKED_AT = 40
"""Characters of the context that a message shows."""


class BadAnswers(ValueError):
    """What is wrong with a row's answers, and what to do."""


@dataclass(frozen=True, slots=True)
class Gold:
    """A right answer: context[start : start + len(text)] == text."""

    text: str
    start: int
    places: int = 1
    """How many places of the context it may have been, where the row does not say which; the first was taken."""


def gold_answers(row: Row, columns: Mapping[str, str]) -> tuple[Gold, ...]:
    """The row's right answers, each found in the context; none where there is no answer. Raises BadAnswers."""
    if "unanswerable" in columns and _is_true(row.get(columns["unanswerable"]), columns["unanswerable"]):
        return ()
    context = row[columns["context"]]
    if "answers" in columns:
        pairs = _listed(row.get(columns["answers"]), columns["answers"])
    else:
        column = columns["answer"]
        start = row.get(columns["answerStart"]) if "answerStart" in columns else None
        pairs = [] if row.get(column) is None else [(row[column], start)]
    found = (_found(text, start, context, columns.get("answers") or columns["answer"]) for text, start in pairs)
    return tuple(gold for gold in found if gold is not None)


def _listed(value: Any, column: str) -> list[tuple[Any, Any]]:
    """(text, start) of each answer."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadAnswers(f"column {column!r} holds text that is not JSON; {FORMS}") from None
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, dict):
        texts = value.get("text")
        starts = value.get("answer_start", value.get("start"))
        if not isinstance(texts, list) or not (starts is None or isinstance(starts, list)):
            raise BadAnswers(f"column {column!r} holds an object without lists 'text' and 'answer_start'; {FORMS}")
        if starts is not None and len(starts) != len(texts):
            raise BadAnswers(
                f"column {column!r} has {len(texts)} texts and {len(starts)} starts; give each text its start"
            )
        return list(zip(texts, starts or [None] * len(texts), strict=True))
    if not isinstance(value, list):
        raise BadAnswers(f"column {column!r} holds {type(value).__name__}, not answers; {FORMS}")
    for item in value:
        if not isinstance(item, dict) or "text" not in item:
            raise BadAnswers(f"column {column!r} lists {type(item).__name__} where {{text, start}} belongs; {FORMS}")
    return [(item["text"], item.get("start", item.get("answer_start"))) for item in value]


def _found(text: Any, start: Any, context: str, column: str) -> Gold | None:
    """The answer where it stands; None where it is empty."""
    if not isinstance(text, str):
        raise BadAnswers(f"column {column!r} has {type(text).__name__} for an answer, not text; write it as a string")
    plain = text.strip()
    if not plain:
        return None
    if start is None or start == "":
        return _first(plain, context, column)
    if isinstance(start, str) and start.strip().isascii() and start.strip().removeprefix("-").isdecimal():
        start = int(start)
    if isinstance(start, float) and start.is_integer():
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int):
        shown = repr(start)[:LOOKED_AT]
        raise BadAnswers(f"the answer {_shown(plain)} has the start {shown}; write a whole number of characters")
    for at in (start + len(text) - len(text.lstrip()), start):
        if at >= 0 and context.startswith(plain, at):
            return Gold(plain, at)
    raise BadAnswers(_misplaced(plain, start, context))


def _first(text: str, context: str, column: str) -> Gold:
    """The first place of an answer whose start is not given."""
    at = context.find(text)
    if at < 0:
        raise BadAnswers(f"the answer {_shown(text)} of column {column!r} {_nowhere(text, context)}")
    return Gold(text, at, context.count(text))


def _misplaced(text: str, start: int, context: str) -> str:
    """What stands where the answer should, and what the matter may be."""
    if start < 0:
        there = "which lies before the context"
    elif start >= len(context):
        there = f"and the context has {len(context)} characters"
    else:
        there = f"where {_shown(context[start : start + max(len(text), 8)])} stands"
    said = f"the answer {_shown(text)} has the start {start}, {there}; "
    around = (context.rfind(text, 0, max(0, start + len(text) - 1)), context.find(text, max(0, start)))
    places = [at for at in around if at >= 0]
    if not places:
        return said + "it " + _nowhere(text, context)
    near = min(places, key=lambda at: (abs(at - start), at))
    away = f"{abs(near - start)} character{'s' if abs(near - start) > 1 else ''} {'on' if near > start else 'before'}"
    said += f"it stands at {near}, {away}"
    if start > near and len(context[:near].encode()) == start:
        return said + ": the start counts bytes; count characters"
    return said + "; starts count characters from 0"


def _nowhere(text: str, context: str) -> str:
    if one_form(text) in one_form(context):
        return "stands in the context in another Unicode form only; write both in one (NFC)"
    if text.casefold() in context.casefold():
        return "stands in the context in other letters (upper and lower case) only; write it as it stands there"
    return "stands nowhere in the context; give an answer that does, or none"


def _shown(text: str) -> str:
    return repr(text if len(text) <= LOOKED_AT else text[: LOOKED_AT - 1] + "…")


def _is_true(value: Any, column: str) -> bool:
    if value is None or value == "":
        return False
    plain = value.strip().lower() if isinstance(value, str) else value
    if plain in ("true", "1", 1):
        return True
    if plain in ("false", "0", 0):
        return False
    raise BadAnswers(
        f"column {column!r} holds {str(value)[:LOOKED_AT]!r}; write true where there is no answer, else false"
    )
