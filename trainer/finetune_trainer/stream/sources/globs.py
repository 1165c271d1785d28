"""Patterns of keys: * and ? stay within a path's part, ** crosses them; a plain name is an object or a folder."""

from __future__ import annotations

import re


def has_glob(pattern: str) -> bool:
    """Whether the pattern stands for more than itself."""
    return "*" in pattern or "?" in pattern


def fixed_prefix(pattern: str) -> str:
    """The part before the first wildcard: what to list."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def spelt_out(pattern: str) -> str:
    """The folders that the pattern writes out before its first wildcard, with a slash at the end."""
    return pattern[: fixed_prefix(pattern).rfind("/") + 1] if has_glob(pattern) else f"{pattern.rstrip('/')}/"


def matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression for whole keys. `a/**/b` also matches `a/b`."""
    out = ""
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            out, position = out + r"(?:.*/)?", position + 3
        elif rest.startswith("**"):
            out, position = out + r".*", position + 2
        elif rest[0] == "*":
            out, position = out + r"[^/]*", position + 1
        elif rest[0] == "?":
            out, position = out + r"[^/]", position + 1
        else:
            out, position = out + re.escape(rest[0]), position + 1
    return re.compile(out + r"\Z", re.DOTALL)
