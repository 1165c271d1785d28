"""Rows of words and tags, or of a text and spans: checked, and read into one form.

A text is cut into words by a rule of its own, whatever the tokenizer: runs of letters and digits, single signs, and the
single characters of scripts that part no words. So the same words are learned and judged with every model.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

from finetune_api.forms import one_form
from finetune_api.values import listed_in
from finetune_trainer.tasks.base import Row
from finetune_trainer.tasks.columns import text_problem
from finetune_trainer.tasks.entities.tags import OUTSIDE, Span, is_plain, spans_of, tags_problem

_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
"""Thai, Lao, Burmese, Khmer, kana, and Han."""
_FORM = 'write the spans as [{"start": 0, "end": 4, "label": "TYPE"}]'


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and its words, as ranges of characters (empty where a word is nothing to see); what is known of them.

    `spans` are entities over words, sharing none; `tags` are plain tags of the words instead.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    spans: tuple[Span, ...] = ()
    tags: tuple[str, ...] | None = None


def passage(row: Row, columns: Mapping[str, str], *, learned: bool = True) -> Passage:
    """What a row says; it has passed `row_problem`, or `input_problem` where nothing is `learned` of it."""
    if "tokens" in columns:
        words = listed_in(row[columns["tokens"]]) or []
        text, places = _joined(words)
        if not learned:
            return Passage(text, places)
        tags = tags_in(row, columns)
        if is_plain(tags):
            return Passage(text, places, tags=tags)
        return Passage(text, places, spans=tuple(spans_of(tags)))
    text = row[columns["text"]]
    places = words_of(text)
    return Passage(text, places, spans=tuple(_over_words(text, places, row, columns)) if learned else ())


def tags_in(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The row's tags, in NFC."""
    return tuple(map(one_form, listed_in(row[columns["tags"]]) or ()))


def types_in(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The types of the row's spans, each once, in NFC."""
    spans = listed_in(row[columns["spans"]]) or ()
    return tuple(dict.fromkeys(label for _, _, label in map(_fields, spans)))


def row_problem(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with a row that is to be learned from, and what to do; None if nothing is."""
    problem = input_problem(row, columns)
    if problem is not None:
        return problem
    return _tags_problem(row, columns) if "tokens" in columns else _spans_problem(row, columns)


def input_problem(row: Row, columns: Mapping[str, str]) -> str | None:
    """What keeps a row from being answered."""
    if "tokens" not in columns:
        return text_problem(row, columns["text"])
    column = columns["tokens"]
    words = listed_in(row.get(column))
    if words is None:
        return _no_list(row, column, 'a list of words, as ["Jane", "lives"]')
    for number, word in enumerate(words):
        if not isinstance(word, str):
            return f"column {column!r} holds {_kind(word)} as word {number}, not text; write each word as a string"
    return None


def _no_list(row: Row, column: str, form: str) -> str:
    value = row.get(column)
    if value is None:
        return f"column {column!r} is missing or null; give it {form}, or leave the row out"
    what = "text that is no JSON list" if isinstance(value, str) else _kind(value)
    return f"column {column!r} holds {what}; write {form}"


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _tags_problem(row: Row, columns: Mapping[str, str]) -> str | None:
    column, words = columns["tags"], listed_in(row[columns["tokens"]]) or []
    tags = listed_in(row.get(column))
    if tags is None:
        return _no_list(row, column, 'a list of tags, as ["B-PERSON", "O"]')
    if len(tags) != len(words):
        return f"has {len(words)} words and {len(tags)} tags; give each word one tag"
    for number, tag in enumerate(tags):
        if isinstance(tag, int) and not isinstance(tag, bool):
            return (
                f"column {column!r} holds the number {tag} as tag {number}, and the data set has no names for its"
                " numbers; write the tags as strings"
            )
        if not isinstance(tag, str) or not tag.strip():
            what = "an empty text" if isinstance(tag, str) else _kind(tag)
            return f"column {column!r} holds {what} as tag {number}; write O where a word is part of no entity"
    problem = tags_problem([one_form(tag) for tag in tags])
    return None if problem is None else f"column {column!r}: {problem}"


def _spans_problem(row: Row, columns: Mapping[str, str]) -> str | None:
    column, text = columns["spans"], row[columns["text"]]
    spans = listed_in(row.get(column))
    if spans is None:
        return _no_list(row, column, '[{"start": 0, "end": 4, "label": "TYPE"}], [] where there is none')
    for number, span in enumerate(spans):
        if problem := _span_problem(span, text):
            return f"column {column!r}, span {number}: {problem}"
    places = words_of(text)
    ordered = sorted(_trimmed(text, span) for span in map(_fields, spans))
    taken: tuple[int, int, str] | None = None
    for span in ordered:
        start, end, label = span
        if taken is not None:
            before, upto, other = taken
            if start < upto:
                both = f"{before} to {upto} ({other}) and {start} to {end} ({label})"
                return f"column {column!r}: spans {both} overlap; keep one of them"
            if _touched(places, before, upto)[1] > _touched(places, start, end)[0]:
                both = f"{text[before:upto]!r} ({other}) and {text[start:end]!r} ({label})"
                return (
                    f"column {column!r}: spans {both} share a word, which can be of one entity only; keep one of them"
                )
        taken = span
    return None


def _span_problem(span: Any, text: str) -> str | None:
    if isinstance(span, Mapping):
        if missing := [name for name in ("start", "end", "label") if span.get(name) is None]:
            return f"has no {' and no '.join(missing)}; {_FORM}"
    elif not (isinstance(span, list | tuple) and len(span) == 3):
        return f"is {_kind(span)}; {_FORM}"
    start, end, label = (span[name] for name in ("start", "end", "label")) if isinstance(span, Mapping) else span
    if any(not isinstance(edge, int) or isinstance(edge, bool) for edge in (start, end)):
        return f"start is {start!r} and end is {end!r}; write both as whole numbers of characters"
    if not isinstance(label, str) or not label.strip() or label == OUTSIDE:
        return f"label is {label!r}; name the type of the entity"
    if not 0 <= start < end <= len(text):
        return (
            f"{start} to {end} does not lie in the text, which has {len(text)} characters; count characters from 0, and"
            " let end be the first behind the span"
        )
    if not text[start:end].strip():
        return f"{start} to {end} is white space only; mark words, or leave the span out"
    said = span.get("text") if isinstance(span, Mapping) else None
    if isinstance(said, str) and said.strip() != text[start:end].strip():
        return (
            f"{start} to {end} is {text[start:end][:60]!r}, and the span says {said[:60]!r}; count characters (not"
            " bytes) from 0"
        )
    return None


def _fields(span: Any) -> tuple[int, int, str]:
    start, end, label = (span["start"], span["end"], span["label"]) if isinstance(span, Mapping) else span
    return start, end, one_form(label)


def _trimmed(text: str, span: tuple[int, int, str]) -> tuple[int, int, str]:
    """The span without white space at its ends."""
    start, end, label = span
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip()), label


def _over_words(text: str, places: Sequence[tuple[int, int]], row: Row, columns: Mapping[str, str]) -> list[Span]:
    """The row's spans over the words that they touch."""
    ordered = sorted(_trimmed(text, span) for span in map(_fields, listed_in(row[columns["spans"]]) or ()))
    return [Span(*_touched(places, start, end), label) for start, end, label in ordered]


def off_edges(row: Row, columns: Mapping[str, str]) -> tuple[str, str] | None:
    """A span of the row that begins or ends inside a word, and the words that it touches; None where there is none."""
    text = row[columns["text"]]
    places = words_of(text)
    for start, end, _ in sorted(_trimmed(text, span) for span in map(_fields, listed_in(row[columns["spans"]]) or ())):
        first, last = _touched(places, start, end)
        if (start, end) != (places[first][0], places[last - 1][1]):
            return text[start:end], text[places[first][0] : places[last - 1][1]]
    return None


def _touched(places: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The words, from and to (exclusive), that share a character with this range, in which there is one."""
    last = bisect_right(places, end - 1, key=itemgetter(0))
    first = bisect_right(places, start, key=itemgetter(0)) - 1
    return (first if first >= 0 and places[first][1] > start else first + 1), last


def words_of(text: str) -> tuple[tuple[int, int], ...]:
    """The words of a text: every character but white space is in one."""
    return tuple(match.span() for match in _pattern().finditer(text))


@cache
def _pattern() -> re.Pattern[str]:
    marks = "".join(chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c))[0] == "M")
    return re.compile(rf"[{_NO_SPACES}][{marks}]*|(?:[^\W{_NO_SPACES}][{marks}]*)+|[^\w\s]")


def _joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """One text of the words, a space between them, and where each stands in it; those of white space stand nowhere."""
    pieces: list[str] = []
    places = []
    length = 0
    for word in words:
        seen = word.strip()
        if seen and pieces:
            pieces.append(" ")
            length += 1
        places.append((length, length + len(seen)))
        pieces.extend([seen] if seen else [])
        length += len(seen)
    return "".join(pieces), tuple(places)
