"""Tables of the page, and texts cut to fit them."""

from __future__ import annotations

from html import escape
from typing import Any


def fact_table(facts: list[tuple[str, str]]) -> str:
    return (
        '<table class="facts">'
        + "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts)
        + "</table>"
    )


def table(head: tuple[str, ...], rows: list[Any], words: int = 1) -> str:
    """Cells are HTML; the first `words` columns are text, the others numbers."""
    kinds = ["" if i < words else ' class="number"' for i in range(len(head))]
    top = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"
