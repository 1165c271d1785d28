"""More rows than a method that compares them is made for: it goes on, and takes long for what others do as well."""

from __future__ import annotations

from finetune_api.method import METHODS
from finetune_api.run import RunConfig
from finetune_api.status import Finding
from finetune_api.text import listed

MANY = 2000
"""Rows above which it is said: what comparing brings falls as rows become many, and its time does not."""


def many_rows(config: RunConfig, rows: int) -> list[Finding]:
    """`rows`: those that are learned from."""
    method = METHODS[config.method.type]
    if method.group == 1 or rows <= MANY:
        return []
    others = listed([m.name for m in METHODS.values() if m.universal], "or")
    message = (
        f"Method {method.name} is made for few rows: it takes each of these {rows:,} with {method.group - 1} more in"
        f" every pass, and holds all of them in memory. {others} learn as much from so many in less time; or set"
        " data.train.perClass."
    )
    return [Finding(kind="ManyRows", count=rows, message=message)]
