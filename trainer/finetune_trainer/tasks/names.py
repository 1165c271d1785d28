"""The names of classes as rows write them: compared as text in one Unicode form, so that 1 and "1", or true and "true",
are the same class in every file format.
"""

from __future__ import annotations

import json
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


def listed_in(value: Any) -> list[Any] | None:
    """The elements of a list, or of a text that is a JSON list, as csv has it; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None
