"""One Unicode form for what is compared: names of columns and classes are equal when people cannot tell them apart.

"é" is one character (NFC) or an "e" with an accent behind it (NFD), as files come from macOS; a text that is learned
stays as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def one_form(text: str) -> str:
    """The text in NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def in_form(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the columns that a row has, under the names given, in whatever form the row writes them."""
    found = {name: values[name] for name in names if name in values}
    if len(found) == len(names):
        return found
    forms = {one_form(name): value for name, value in values.items()}
    return {name: found[name] if name in found else forms[name] for name in names if name in found or name in forms}
