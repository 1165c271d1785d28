"""The manifest reference for people, docs/reference.md: every field of the spec and the status, and every reason a job
stops for.

Made from the CRD's own schema and from the contract's tables, so that it can never say anything else than the API
server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from finetune_api import API_VERSION, KIND
from finetune_api.exits import COMPLETE, EXITS, Retry
from finetune_api.method import METHODS, MethodInfo
from finetune_api.resolve import learning_rate
from finetune_api.tasks import TASKS, Role

_INTRO = f"""\
<!-- Generated from crds/finetune_api by `make crds`; do not edit. -->
# {KIND} reference

`apiVersion: {API_VERSION}`, `kind: {KIND}`, short name `ftj`. The same rules hold
for `kubectl apply`, `finetune validate` and `finetune run`. Fields in **bold** are required within their object. A
default marked *chosen* follows from the model and the data; the value used is written to `status.resolved`.

"""
_RETRIES = {Retry.NEVER: "no", Retry.BUDGET: "while `maxRestarts` lasts", Retry.ALWAYS: "always"}


def reference(crd: dict[str, Any]) -> str:
    """The page, in Markdown."""
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    spec, status = properties["spec"], properties["status"]
    frozen = {r["fieldPath"].removeprefix(".") for r in spec["x-kubernetes-validations"] if "oldSelf" in r["rule"]}
    mutable = ", ".join(f"`{name}`" for name in spec["properties"] if name not in frozen)
    parts = [
        _INTRO,
        "## Spec\n\n",
        (
            f"The spec is frozen from creation, but for {mutable}: to change anything else, delete the job and create a"
            " new one.\n\n"
        ),
        _table("spec", spec),
        "\n### Rules between fields\n\n",
        *(_rule_lines("spec", spec)),
        "\n### Tasks and methods\n\n",
        _tasks(),
        "\n",
        _methods(),
        "\n## Status\n\n",
        _table("status", status, values=False),
        "\n## Troubleshooting by reason\n\n",
        (
            "`status.failure.reason` (of a failed job), `status.attempts[].reason` (of each attempt) and"
            " `status.reason` say one of these:\n\n"
        ),
        _reasons(),
        "\n## Exit codes\n\n",
        _codes(),
    ]
    return "".join(parts)


def _table(root: str, schema: dict[str, Any], *, values: bool = True) -> str:
    head = (
        "| Field | Type | Default | Bounds | Meaning |\n|---|---|---|---|---|\n"
        if values
        else "| Field | Type | Meaning |\n|---|---|---|\n"
    )
    return head + "".join(_rows(root, schema, values))


def _rows(path: str, schema: dict[str, Any], values: bool) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        shown = f"**`{here}`**" if name in schema.get("required", ()) else f"`{here}`"
        cells = [
            shown,
            _type(field),
            *([_default(field), _bounds(field)] if values else []),
            _cell(field.get("description", "")),
        ]
        yield "| " + " | ".join(cells) + " |\n"
        yield from _rows(here, field, values)
        yield from _rows(f"{here}[]", field.get("items", {}), values)
        inner = field.get("additionalProperties", {})
        yield from _rows(f"{here}.*", inner, values)


def _type(field: dict[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    return str(field["type"])


def _default(field: dict[str, Any]) -> str:
    if "default" in field:
        value = field["default"]
        return "" if value == {} else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    return "*chosen*" if re.search(r"chosen[^.;]*when absent", field.get("description", "")) else ""


def _bounds(field: dict[str, Any]) -> str:
    found = []
    if "minimum" in field:
        found.append(f"{'>' if field.get('exclusiveMinimum') else '≥'} {_number(field['minimum'])}")
    if "maximum" in field:
        found.append(f"{'<' if field.get('exclusiveMaximum') else '≤'} {_number(field['maximum'])}")
    for low, high, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "entries"),
    ):
        if high in field:
            found.append(f"{field[low]} to {field[high]} {unit}" if field.get(low) else f"≤ {field[high]} {unit}")
    found += [rule["message"] for rule in field.get("x-kubernetes-validations", ()) if _is_form(rule)]
    return _cell(", ".join(found))


def _is_form(rule: dict[str, Any]) -> bool:
    """Whether a rule is about one text or a map's keys, not about several fields."""
    return rule["rule"].startswith(("self.matches(", "self.all(k, size(k)"))


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _rule_lines(path: str, schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _is_form(rule):
            yield f"- `{path}{rule.get('fieldPath', '')}`: {_cell(rule['message'])}\n"
    for name, field in schema.get("properties", {}).items():
        yield from _rule_lines(f"{path}.{name}", field)
        yield from _rule_lines(f"{path}.{name}[]", field.get("items", {}))
        yield from _rule_lines(f"{path}.{name}.*", field.get("additionalProperties", {}))


def _tasks() -> str:
    head = "| Task | Columns | Metrics | Most tokens, unless `maxLength` says otherwise |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{task.name}` | {', or '.join(map(_columns, task.alternatives))} |"
        f" {', '.join(f'{m} (*auto*)' if m == task.default_metric else m for m in task.metrics)} |"
        f" {task.default_max_length:,} |\n"
        for task in TASKS.values()
    )


def _columns(roles: tuple[Role, ...]) -> str:
    return ", ".join(f"{role.name} (optional)" if role.optional else role.name for role in roles)


def _methods() -> str:
    def rates(method: MethodInfo) -> str:
        fit = (task for task in TASKS.values() if method.fits(task))
        return ", ".join(f"{learning_rate(task, method):g} for {task.name}" for task in fit)

    rows = (f"| `{method.name}` | {method.trains} | {rates(method)} |\n" for method in METHODS.values())
    return "| Method | Trains | `learningRate` chosen |\n|---|---|---|\n" + "".join(rows)


def _reasons() -> str:
    rows = (f"| `{e.reason}` | {_cell(e.cause)} | {_cell(e.hint)} | {_RETRIES[e.retry]} |\n" for e in EXITS.values())
    return "| Reason | Cause | What to do | Tried again |\n|---|---|---|---|\n" + "".join(rows)


def _codes() -> str:
    rows = (f"| {e.code} | `{e.reason}` |\n" for e in EXITS.values() if e.code is not None)
    head = (
        "The trainer's containers exit with these; any other code is `Crashed` or a signal.\n\n| Code | Meaning"
        " |\n|---|---|\n"
    )
    return f"{head}| {COMPLETE} | complete, artefacts committed |\n" + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("*", "\\*").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
