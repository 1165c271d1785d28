"""What makes a row the same as another: 64 bits of its inputs, so that millions of rows can be compared."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Container, Mapping
from typing import Any

from finetune_api.forms import one_form

UNUSABLE = 0
"""Fingerprint of a row that cannot be used."""


def fingerprint_text(values: Mapping[str, Any], columns: Mapping[str, str], no_input: Container[str]) -> str:
    """What makes a row the same as another: its inputs, not the columns of what is learned of them."""
    parts = [values.get(name) for name in columns.values() if name not in no_input]
    return "\x1f".join(
        part if isinstance(part, str) else json.dumps(part, sort_keys=True, ensure_ascii=False, default=str)
        for part in parts
    )


def group_print(value: Any) -> int:
    """64 bits of a value that rows are grouped by, as text: 7 and "7" are one; UNUSABLE where there is none."""
    if value is None or value != value:  # a missing number of parquet is not equal to itself
        return UNUSABLE
    if isinstance(value, float) and value.is_integer():  # whole numbers beside missing ones
        value = int(value)
    try:
        plain = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    except RecursionError:
        return UNUSABLE
    plain = one_form(plain).strip()
    return _digest(plain.encode("utf-8", "surrogatepass")) if plain else UNUSABLE


def fingerprint(text: str) -> int:
    """64 bits of the text after NFKC, case folding and collapsing white space; never UNUSABLE."""
    normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _digest(" ".join(normal.casefold().split()).encode())


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
