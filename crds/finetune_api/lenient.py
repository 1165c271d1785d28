"""Reading what another version wrote, part by part: what does not fit is left out and named, and the rest stays.

An older operator must go on from a status that a newer one wrote (a phase or condition that it does not know, a longer
list), and must never take a finished job for a new one.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from finetune_api.base import FieldError, ModelT, parse_stored

_ROUNDS = 32
"""Leaving a part out may show what was hidden behind it; after so many rounds nothing is kept."""


def parse_lenient(model: type[ModelT], data: Any) -> tuple[ModelT, list[str]]:
    """The parts of `data` that fit, and the names of those that do not; `model` must be valid without any."""
    try:
        return parse_stored(model, data)
    except (FieldError, AttributeError, TypeError, ValueError, RecursionError):
        pass
    try:
        rest = _marked(json.loads(json.dumps(data)))
    except (TypeError, ValueError, RecursionError):
        rest = None
    if not isinstance(rest, dict):
        return model(), ["(top)"]
    left_out: dict[str, None] = {}
    for _ in range(_ROUNDS):
        try:
            value, ignored = parse_stored(model, rest)
        except FieldError:
            for each in _errors(model, rest):
                left_out[".".join(map(str, each["loc"]))] = None
                _leave_out(rest, each)
            continue
        return value, [*left_out, *ignored]
    return model(), [*left_out, "(top)"]


def _marked(value: Any) -> Any:
    """Whole numbers that nothing can store become texts, which no such field takes."""
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return str(value)[:20] if isinstance(value, int) and abs(value) >= 2**63 else value


def _errors(model: type[ModelT], data: dict[str, Any]) -> list[Any]:
    """What is wrong, the last items of a list first, so that taking one out moves none that is still to go."""
    found: list[Any] = []
    try:
        model.model_validate_json(json.dumps(data), by_name=False, extra="ignore")
    except ValidationError as error:
        found = list(error.errors())
    return sorted(found, key=lambda e: [(isinstance(p, str), p) for p in e["loc"]], reverse=True)


def _leave_out(data: Any, error: Any) -> None:
    """Cut what is too long; take out what is wrong, and the whole of which a required part is missing."""
    where = [part for part in error["loc"] if part != "[key]"]
    if error["type"] == "missing":
        where = where[:-1]
    most = (error.get("ctx") or {}).get("max_length")
    for part in where[:-1]:
        data = data[part] if _has(data, part) else None
    if not where or not _has(data, where[-1]):
        return
    last = where[-1]
    if most is not None and isinstance(data[last], str | list):
        data[last] = data[last][:most]
    else:
        del data[last]


def _has(data: Any, part: Any) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data
