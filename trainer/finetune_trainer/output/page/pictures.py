"""Rows that are looked at rather than read, with what the model takes them for."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.tables import shorten
from finetune_trainer.output.result import Result


def pictures(result: Result) -> str:
    if not result.pictures:
        return ""
    cards = []
    for picture in result.pictures:
        good = picture.true == picture.predicted
        said = f"{escape(shorten(picture.predicted, 24))} {picture.score:.0%}"
        true = "right" if good else f"is {escape(shorten(picture.true, 24))}"
        cards.append(
            f'<figure class="picture {"right" if good else "wrong"}"><img src="{escape(picture.source)}"'
            f' alt="{escape(shorten(picture.true, 80))}"><figcaption>{said}<br><span'
            f' class="muted">{true}</span></figcaption></figure>'
        )
    wrong = sum(picture.true != picture.predicted for picture in result.pictures)
    note = (
        f"some of the {result.judged_on} rows; {wrong} mistakes, the most certain ones first"
        if wrong
        else (f"some of the {result.judged_on} rows, all right")
    )
    head = f'<h2>What the model takes images for</h2><p class="muted">{note}</p>'
    return f'{head}<section class="pictures">{"".join(cards)}</section>'
