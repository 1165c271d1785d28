"""Small pieces of the page: tables, and numbers as people read them."""

from __future__ import annotations

from html import escape
from typing import Any

from finetune_trainer.output.page.charts import number


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


def figure(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 else number(value)


def setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value) if abs(value) >= 1e-12 else "0"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {setting(each)}" for name, each in value.items())
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
