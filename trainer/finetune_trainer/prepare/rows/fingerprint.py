"""What makes a row the same as another: 64 bits of its inputs, so that millions of rows can be compared."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Container, Mapping
from typing import Any

UNUSABLE = 0
"""Fingerprint of a row that cannot be used."""


def fingerprint_text(values: Mapping[str, Any], columns: Mapping[str, str], no_input: Container[str]) -> str:
    """What makes a row the same as another: its inputs, not the columns of what is learned of them."""
    parts = [values.get(name) for name in columns.values() if name not in no_input]
    return "\x1f".join(
        part if isinstance(part, str) else json.dumps(part, sort_keys=True, ensure_ascii=False, default=str)
        for part in parts
    )


def fingerprint(text: str) -> int:
    """64 bits of the text after NFKC, case folding and collapsing white space; never UNUSABLE."""
    normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
    plain = " ".join(normal.casefold().split()).encode()
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little") or 1
