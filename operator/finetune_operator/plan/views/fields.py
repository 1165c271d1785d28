"""Reading single fields of Kubernetes objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WORDS = 1024
"""Longest text kept of a message of Kubernetes' own."""


def controller(meta: Mapping[str, Any]) -> Mapping[str, str]:
    """The owner reference of its controller; empty if it has none."""
    owners: Iterable[Mapping[str, Any]] = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller")), {})


def whole(text: str | None) -> int | None:
    """A number of at most seven digits as text; None for anything else, of whatever length."""
    return int(text) if text and len(text) <= 7 and text.isascii() and text.isdecimal() else None
