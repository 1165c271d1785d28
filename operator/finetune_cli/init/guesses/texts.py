"""Texts and nothing else: a model can learn their language."""

from __future__ import annotations

from finetune_cli.init.guesses.base import Guess, Rows
from finetune_cli.init.guesses.classification import class_columns, text_column, texts_of

WORDS = 3
"""Words of a text on average, at least: shorter ones are names or numbers."""


def texts(rows: Rows, names: list[str], text: str | None = None) -> Guess | None:
    """A column of texts where none holds classes; `text`: named by the user."""
    found = texts_of(rows, names)
    if class_columns(rows, [name for name in names if name != text]) or not found:
        return None
    column = text or text_column(rows, found)
    if column not in found:
        return None
    if sum(len(str(row[column]).split()) for row in rows) < WORDS * len(rows):
        return None
    reasons = (
        f"{column} holds texts, and no column holds classes: the model learns their language, for other jobs to start"
        " from; if there are classes, name their column with --label",
    )
    return Guess({"text": column}, reasons)
