"""The names of classes as rows write them: compared as text in one Unicode form, so that 1 and "1", or true and "true",
are the same class in every file format.
"""

from __future__ import annotations

from typing import Any


def label_text(value: Any) -> str | None:
    """A class as text: strings as they are, integers, booleans as JSON writes them; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | str) and value != "":
        return str(value)
    return None
