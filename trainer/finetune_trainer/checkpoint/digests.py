"""The two digests of every part: CRC32C, cheap enough to check on each load, and SHA-256, which says whose bytes they
are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import google_crc32c


def crc32c(data: bytes) -> str:
    """CRC32C as eight hex digits."""
    return f"{google_crc32c.value(data):08x}"


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def both(pieces: Iterable[memoryview]) -> tuple[str, str]:
    """CRC32C and SHA-256 of bytes that come in pieces."""
    check, digest = 0, hashlib.sha256()
    for piece in pieces:
        check = google_crc32c.extend(check, bytes(piece))  # takes bytes only
        digest.update(piece)
    return f"{check:08x}", digest.hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys or the white space of its text."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
