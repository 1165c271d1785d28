"""Texts for people, kept within the status' bounds."""

from __future__ import annotations

from collections.abc import Sequence


def clip(text: str, length: int) -> str:
    """At most `length` characters, with an ellipsis where something was cut off."""
    return text if len(text) <= length else text[: length - 1] + "…"


def join(message: str, hint: str) -> str:
    """A message and what to do about it, as one text."""
    if not hint:
        return message
    return f"{message.rstrip('. ')}. {hint}" if message else hint


def listed(names: Sequence[str], last: str = "and") -> str:
    """a, b and c"""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def camel_case(name: str) -> str:
    """A name in kebab-case as a field of a manifest: prompt-tuning is promptTuning."""
    first, *more = name.split("-")
    return first + "".join(part.capitalize() for part in more)
