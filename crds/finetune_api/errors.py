"""What is wrong with an input, for people: pydantic's errors as (field, what to do), in the words of the manifest (I9).

No message repeats the input's text: it may be a secret that stands in the wrong field (I7).
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "NoneType": "null",
}
_WANTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}


def field_errors(error: ValidationError) -> list[tuple[str, str]]:
    """One (field, message) for each error, without repetition."""
    return list(dict.fromkeys(_field_error(each) for each in error.errors()))


def _field_error(error: Any) -> tuple[str, str]:
    kind, message, where = error["type"], error["msg"], list(error["loc"])
    if where and where[-1] == "[key]":  # a map's key: the map is to blame
        return _path(where[:-2]), f"keys: {message}"
    if kind == "rule":
        return ".".join(filter(None, (_path(where), error["ctx"]["field"]))) or "(top)", message
    if kind == "extra_forbidden":
        message = "no such field; check its spelling and place (kubectl explain ftj.spec lists all)"
    elif kind == "missing":
        message = "this field is required"
    elif (wanted := kind.removesuffix("_type")) in _WANTED and wanted != kind:
        message = _wrong_type(wanted, error["input"])
    else:
        message = re.sub(r"^(Input|String|Tuple|List|Dictionary|Value) should ", "must ", message).replace(
            " after validation", ""
        )
        message = message.replace("be a finite number", "be a number; NaN and infinity are none")
    return _path(where) or "(top)", message


def _path(where: list[Any]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")


def _wrong_type(wanted: str, given: Any) -> str:
    if wanted == "int" and isinstance(given, float):
        return "must be a whole number, without a fraction"
    message = f"must be {_WANTED[wanted]}, not {_KINDS.get(type(given).__name__, type(given).__name__)}"
    return f"{message}; put it in quotes" if wanted == "string" and isinstance(given, int | float) else message
