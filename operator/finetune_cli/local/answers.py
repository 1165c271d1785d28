"""Answers as a table: what is nested in a row gets a column for each of its parts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_csv(answers: Path, target: Path, delimiter: str) -> None:
    """From JSON lines. A row's columns are those of all rows, in the order in which they first come; read twice, so
    that memory does not grow with the rows.
    """
    names: dict[str, None] = {}
    for row in _rows(answers):
        names.update(dict.fromkeys(row))
    with target.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(names), delimiter=delimiter, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(_rows(answers))


def _rows(answers: Path) -> Iterator[dict[str, Any]]:
    with answers.open(encoding="utf-8") as lines:
        for line in lines:
            yield flat(json.loads(line))


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """One level of objects as columns (prediction.label); deeper ones and lists as JSON text; nothing for null."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        parts = {f"{name}.{part}": each for part, each in value.items()} if isinstance(value, dict) else {name: value}
        found.update({part: _cell(each) for part, each in parts.items()})
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
