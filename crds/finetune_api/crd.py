"""The models as a CustomResourceDefinition: one truth, so that the API server and `finetune run` refuse the same
things.

The schema is structural: references inlined, unknown fields refused, everything described and bounded. Rules that span
fields become CEL beside their object, a `Form` becomes CEL on its text (its message is for people, a pattern's is not),
and each field of the spec that is not marked mutable gets a transition rule that freezes it. The status has no
defaults: what the operator did not say stays unsaid. Only data is made here; crds/generate.py writes the files.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from finetune_api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from finetune_api.base import NO_SPACE, Model, Rule, cel_text
from finetune_api.job import Spec
from finetune_api.status import Status

COLUMNS = (
    ("Phase", "string", ".status.phase", "Where the job is.", 0),
    ("Model", "string", ".status.display.model", "Short name of the model.", 0),
    ("Method", "string", ".spec.method.type", "How the model is tuned.", 0),
    ("Progress", "string", ".status.display.progress", "Share of the steps done.", 0),
    ("Loss", "string", ".status.display.loss", "Training loss.", 0),
    ("Best", "string", ".status.display.best", "Best evaluation so far.", 0),
    ("ETA", "string", ".status.display.eta", "Time to the end.", 0),
    ("Reason", "string", ".status.reason", "Why the job is in this phase.", 1),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation.", 0),
)

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
# What JSON Schema says beside these is dealt with below; anything else is a mistake of ours.
_KNOWN = {
    *_KEPT,
    "title",
    "$ref",
    "$defs",
    "anyOf",
    "const",
    "default",
    "properties",
    "additionalProperties",
    "propertyNames",
    "items",
    "x-finetune-mutable",
    "x-finetune-rules",
    "x-finetune-form",
}
_CEL_RESERVED = {
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
}


class _WithRules(GenerateJsonSchema):
    """JSON Schema in which every object carries its model's rules."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        value = super().model_schema(schema)
        rules: tuple[Rule, ...] = schema["cls"].RULES
        if rules:
            value["x-finetune-rules"] = rules
        return value


def custom_resource_definition() -> dict[str, Any]:
    """The CustomResourceDefinition (apiextensions.k8s.io/v1) as plain data."""
    spec = structural(Spec)
    spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", []), *_frozen(spec)]
    root = {
        "description": "A fine-tuning job: a pre-trained model, data to learn from, and where the result goes.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"The API's version: {API_VERSION}.", "type": "string"},
            "kind": {"description": f"The kind: {KIND}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": structural(Status, defaults=False),
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "finetune-operator"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ftj"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(*c) for c in COLUMNS],
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def structural(model: type[Model], *, defaults: bool = True) -> dict[str, Any]:
    """A model's structural schema, references inlined."""
    schema = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_WithRules)
    return _inline(schema, schema.get("$defs", {}), defaults)


def _inline(schema: dict[str, Any], definitions: dict[str, Any], defaults: bool) -> dict[str, Any]:
    unknown = set(schema) - _KNOWN
    assert not unknown, f"the generator does not know {unknown} in {schema}"
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return _inline({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions, defaults)
    if "anyOf" in schema:
        return _union(schema, definitions, defaults)
    made = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        made["enum"] = [schema["const"]]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in made:  # OpenAPI 3.0: a number and a flag
            made[limit], made[bound] = made[bound], True
    if "properties" in schema:
        made["properties"] = {
            name: _inline(value, definitions, defaults) for name, value in schema["properties"].items()
        }
    if "additionalProperties" in schema and schema["additionalProperties"] is not False:
        made["additionalProperties"] = _inline(schema["additionalProperties"], definitions, defaults)
    if "items" in schema:
        made["items"] = _inline(schema["items"], definitions, defaults)
        made.setdefault("x-kubernetes-list-type", "atomic")
    if defaults and schema.get("default") is not None:
        made["default"] = _default(schema["default"], made)
    if rules := _rules(schema):
        made["x-kubernetes-validations"] = rules
    return made


def _union(schema: dict[str, Any], definitions: dict[str, Any], defaults: bool) -> dict[str, Any]:
    """`X | None` is an optional X; the only other union is an integer or a text."""
    options = [option for option in schema["anyOf"] if option.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(options) == 1:
        return _inline({**options[0], **rest}, definitions, defaults)
    flat = [_inline(option, definitions, defaults) for option in options]
    assert sorted(option["type"] for option in flat) == ["integer", "string"], schema
    bounds = {key: value for option in flat for key, value in option.items() if key != "type"}
    own = _inline(rest, definitions, defaults)
    return {**own, "anyOf": [{"type": "integer"}, {"type": "string"}], **bounds, "x-kubernetes-int-or-string": True}


def _default(value: Any, made: dict[str, Any]) -> Any:
    """The default as given; of an object only what differs from its own fields' defaults, which apply by themselves."""
    if not isinstance(value, dict):
        return value
    return {k: v for k, v in value.items() if v is not None and v != made["properties"][k].get("default")}


def _rules(schema: dict[str, Any]) -> list[dict[str, Any]]:
    rules = [_rule(rule.cel, rule.message, rule.field) for rule in schema.get("x-finetune-rules", ())]
    if form := schema.get("x-finetune-form"):
        fits = f"self.matches({cel_text(form['regex'])})"
        if "spaced" in form:
            no_space = f"self.matches({cel_text(NO_SPACE)})"
            rules.append(_rule(no_space, form["spaced"]))
            fits = f"!{no_space} || {fits}"
        rules.append(_rule(fits, form["message"]))
    if form := schema.get("propertyNames", {}).get("x-finetune-form"):
        longest = schema["propertyNames"]["maxLength"]
        rules.append(
            _rule(
                f"self.all(k, size(k) <= {longest} && k.matches({cel_text(form['regex'])}))", f"keys: {form['message']}"
            )
        )
    return rules


def _rule(cel: str, message: str, field: str | None = None) -> dict[str, Any]:
    path = {"fieldPath": f".{field}"} if field else {}
    return {"rule": cel, "message": message, **path, "reason": "FieldValueInvalid"}


def _frozen(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """A transition rule for each top-level field of the spec that may not change, be added or be taken away."""
    rules = []
    for name, field in Spec.model_fields.items():
        alias = field.alias or name
        assert alias not in _CEL_RESERVED
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("x-finetune-mutable"):
            continue
        same = f"self.{alias} == oldSelf.{alias}"
        if alias not in spec["required"]:
            same = f"has(self.{alias}) == has(oldSelf.{alias}) && (!has(self.{alias}) || {same})"
        rules.append(_rule(same, f"spec.{alias} is frozen after creation; delete the job and create a new one", alias))
    return rules


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column
