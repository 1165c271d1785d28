"""What the chart's roles grant, read from its templates without helm: the fake API server refuses everything else.

So a request that the operator newly makes fails its tests until the chart grants it. Names and namespaces of the roles
do not count here; tests/chart holds them to golden files.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

TEMPLATES = Path(__file__).parents[2] / "charts" / "finetune-operator" / "templates"
RULES = 'define "finetune-operator.rules"'
Right = tuple[str, str]
"""Verb, and the plural with its subresource: ("patch", "finetunejobs/status")."""


@functools.cache
def granted() -> frozenset[Right]:
    """All that the operator's own roles grant."""
    helpers = (TEMPLATES / "_helpers.tpl").read_text()
    watched = helpers.split(RULES, 1)[1].split("-}}", 1)[1].split("{{- end -}}", 1)[0]
    rules: list[dict[str, Any]] = yaml.safe_load(watched)
    for name in ("rbac.yaml", "report-tls.yaml"):
        roles = yaml.safe_load_all(_plain((TEMPLATES / name).read_text()))
        rules += [rule for role in roles for rule in (role or {}).get("rules") or ()]
    return frozenset((verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"])


def _plain(template: str) -> str:
    """The YAML of a template: lines of nothing but an action go, other actions become a word."""
    lines = [line for line in template.splitlines() if not re.fullmatch(r"\s*\{\{.*\}\}\s*", line)]
    return re.sub(r"\{\{.*?\}\}", "x", "\n".join(lines))
