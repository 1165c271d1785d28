"""The answers that are most wrong, each with its row, what is true and what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from finetune_trainer.output.page.marked import marked
from finetune_trainer.output.page.numbers import figure
from finetune_trainer.output.page.tables import shorten, table
from finetune_trainer.output.result import Result, WrongAnswer

MOST, MOST_PICTURES = 25, 24
"""Of each kind on the page."""
MOST_TEXT, MOST_MARKED, MOST_SAID = 400, 2000, 200
"""Characters."""
HINT = (
    "Rows that are wrong with high certainty are often rows whose label is wrong: look at those first. Correct them in"
    " the data, and train again."
)


def wrong_answers(result: Result) -> str:
    if not result.wrong_answers:
        return ""
    parts, seen = [], list[list[tuple[str, int]]]()
    for kind, title in result.wrong_kinds.items():
        found = [each for each in result.wrong_answers if each.kind == kind]
        rows = [(each.file, each.row) for each in found]
        if found and rows not in seen:  # of two classes, the one list is the other
            parts.append(_kind(title, found))
            seen.append(rows)
    note = f'<p class="muted">On the {result.judged_on} rows. {HINT} All of them are in errors.jsonl.</p>'
    return f"<h2>Most wrong answers</h2>{note}{''.join(parts)}"


def _kind(title: str, found: Sequence[WrongAnswer]) -> str:
    pictures = any(each.mistake.picture for each in found)
    shown = found[: MOST_PICTURES if pictures else MOST]
    body = _pictures(shown) if pictures else _table(shown)
    more = (
        f'<p class="muted">{len(found) - len(shown)} more are in errors.jsonl.</p>' if len(found) > len(shown) else ""
    )
    return f"<h3>{escape(title)}</h3>{body}{more}"


def _pictures(shown: Sequence[WrongAnswer]) -> str:
    cards = []
    for each in shown:
        mistake = each.mistake
        share = next(iter(mistake.figures.values()))
        said, true = escape(shorten(mistake.said, 24)), escape(shorten(mistake.true, 24))
        cards.append(
            f'<figure class="picture wrong" title="{escape(each.place)}"><img src="{escape(mistake.picture or "")}"'
            f' alt="{escape(shorten(mistake.true, 80))}"><figcaption>{said} {share:.0%}<br><span class="muted">is'
            f" {true}</span></figcaption></figure>"
        )
    return f'<section class="pictures">{"".join(cards)}</section>'


def _table(shown: Sequence[WrongAnswer]) -> str:
    mistakes = [each.mistake for each in shown]
    true, said = any(m.true for m in mistakes), any(m.said for m in mistakes)
    head = ("row", "text", *(("true",) if true else ()), *(("the model says",) if said else ()), *mistakes[0].figures)
    rows = []
    for each in shown:
        m = each.mistake
        words: list[Any] = [_place(each), _text(each)]
        words += [escape(shorten(m.true, MOST_SAID))] if true else []
        words += [escape(shorten(m.said, MOST_SAID))] if said else []
        rows.append((*words, *(figure(value) for value in m.figures.values())))
    return f'<div class="card">{table(head, rows, words=2 + true + said)}</div>'


def _place(each: WrongAnswer) -> str:
    return f'<span title="{escape(each.file)}">{escape(each.place.rpartition("/")[2])}</span>'


def _text(each: WrongAnswer) -> str:
    m = each.mistake
    if not m.true_marks and not m.said_marks:
        return f'<span class="said">{escape(shorten(m.text, MOST_TEXT))}</span>'
    true, said = (
        marked(m.text, tuple((start, end, label) for start, end, label in marks), MOST_MARKED)
        for marks in (m.true_marks, m.said_marks)
    )
    return f'<div class="said">{true}</div><div class="said after">{said}</div>'
