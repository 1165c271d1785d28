"""What stands in a row's field: numbers and lists, which csv has as text."""

from __future__ import annotations

import json
import math
from typing import Any


def number_in(value: Any) -> float:
    """The number, also of a text that is one; nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def listed_in(value: Any) -> list[Any] | None:
    """The elements of a list, or of a text that is a JSON list; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None
