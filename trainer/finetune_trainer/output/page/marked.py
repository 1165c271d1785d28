"""A text with parts of it marked: by colour, and in words behind each part."""

from __future__ import annotations

from html import escape
from zlib import crc32

from finetune_trainer.output.page.tables import shorten
from finetune_trainer.output.result import Marks

HUES = 8
"""Colours in style.css; a label has the same one wherever it stands."""


def marked(text: str, marks: Marks, most: int) -> str:
    """The first `most` characters as HTML; a part that is cut, or that overlaps the one before it, is not marked."""
    pieces, at = [], 0
    for start, end, label in sorted(marks):
        if start < at or end > min(most, len(text)):
            continue
        hue, name = crc32(label.encode()) % HUES, escape(shorten(label, 40))
        pieces.append(escape(text[at:start]))
        pieces.append(f'<mark class="hue{hue}">{escape(text[start:end])}<small>{name}</small></mark>')
        at = end
    return "".join(pieces) + escape(shorten(text[at:], max(0, most - at)))
