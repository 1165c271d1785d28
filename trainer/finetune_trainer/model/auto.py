"""transformers' own tables of what it knows, read from its sources: to import them takes seconds."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def module_of(model_type: str) -> str:
    """The module with a model type's classes; there need not be one."""
    name = _tables("auto_mappings").get("SPECIAL_MODEL_TYPE_TO_MODULE_NAME", {}).get(model_type, model_type)
    name = name.replace("-", "_")
    return f"transformers.models.{name}.modeling_{name}"


def class_of(model_type: str, auto_class: str) -> str | None:
    """The class that an Auto class gives for a model type, by name; None where it gives none."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", auto_class.removeprefix("AutoModel")).upper()
    name = "_".join(filter(None, ("MODEL", kind, "MAPPING_NAMES")))
    found = _tables("modeling_auto").get(name, {}).get(model_type)
    return found[0] if isinstance(found, tuple) else found


def source(module: str) -> str | None:
    """The module's text; None where there is no such module."""
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        spec = find_spec(module)
    except ImportError:
        return None
    return Path(spec.origin).read_text() if spec and spec.origin else None


@functools.cache
def _tables(module: str) -> Mapping[str, Mapping[str, Any]]:
    """The dictionaries of a module that are written out, by name."""
    tree = ast.parse(source(f"transformers.models.auto.{module}") or "")
    found: dict[str, Mapping[str, Any]] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[ast.List() as pairs])):
                found[name] = dict(_pairs(pairs))
    return found


def _pairs(pairs: ast.List) -> list[tuple[str, Any]]:
    """Those of them that are plain: some hang on what is installed."""
    plain = []
    for pair in pairs.elts:
        try:
            name, value = ast.literal_eval(pair)
        except ValueError:
            continue
        plain.append((name, value))
    return plain
