"""A value that reaches every bound of a structural schema: for worst cases, and to see that nothing is lost."""

from __future__ import annotations

import json
from typing import Any


def filled(schema: dict[str, Any], letter: str = "x", code: frozenset[str] = frozenset(), number: int = 0) -> Any:
    """JSON data with every field set and every bound reached; `letter` fills texts, but those of fields named in
    `code`.
    """
    kind = schema["type"]
    if "enum" in schema:
        return max(schema["enum"], key=lambda value: len(json.dumps(value)))
    if kind == "object" and "additionalProperties" in schema:
        keys = [f"{i:02d}".ljust(64, "k") for i in range(schema["maxProperties"])]
        return {key: filled(schema["additionalProperties"], letter, code) for key in keys}
    if kind == "object":
        found = {
            name: filled(field, "x" if name in code else letter, code) for name, field in schema["properties"].items()
        }
        return {**found, **({"type": f"Type{number}".ljust(64, "x")} if "type" in found else {})}
    if kind == "array":
        return [filled(schema["items"], letter, code, i) for i in range(schema["maxItems"])]
    if schema.get("format") == "date-time":
        return "2026-01-31T12:00:00.123456+00:00"
    if kind == "string":
        return letter * schema["maxLength"]
    if kind == "boolean":
        return False
    if kind == "integer":
        return schema.get("maximum", 2**53)
    assert kind == "number", schema
    return 1.2345678901234567e-300 if "minimum" in schema else -1.2345678901234567e-300
