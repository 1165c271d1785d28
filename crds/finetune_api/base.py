"""The base of every model of the contract: frozen, camelCase on the wire, unknown fields refused, rules stated once.

A cross-field rule is written once as a `Rule`: its CEL text goes into the CRD, its Python check runs here, and the
corpus in tests/contract holds the two to the same verdict. Parsing is strict for people (`parse`) and lenient for
stored objects (`parse_stored`): an older operator must survive what a newer one wrote, and says what it ignored.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from finetune_api.errors import field_errors


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that spans fields, in CEL for the API server and in Python for everyone else."""

    cel: str
    message: str  # names the field and says what to do
    check: Callable[[Any], bool]
    field: str | None = None  # the camelCase field that the error points at, if one is to blame
    cluster_only: bool = False  # not applied by `finetune run` (file:// URIs, Secrets)


def cel_text(text: str) -> str:
    """A text as a CEL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


NO_SPACE = r"^[^\p{Z}]*$"


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a text: a regular expression that RE2 (the API server) and Rust (pydantic) read alike, and a message.

    Used in `Annotated[str, StringConstraints(max_length=…), Form(…)]`; it becomes CEL, whose message is ours, unlike a
    pattern's.
    """

    regex: str
    message: str
    spaced: str | None = None  # told instead where the text holds a space

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        forms = [(NO_SPACE, self.spaced), (self.regex, self.message)] if self.spaced else [(self.regex, self.message)]
        steps = [
            core_schema.custom_error_schema(core_schema.str_schema(pattern=p), "form", custom_error_message=m)
            for p, m in forms
        ]
        return core_schema.chain_schema([handler(source), *steps])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        spaced = {"spaced": self.spaced} if self.spaced else {}
        return {**handler(schema), "x-finetune-form": {"regex": self.regex, "message": self.message, **spaced}}


class OneOf:
    """A text that is one of these names: a Literal of names that stand in a table."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


@dataclass(frozen=True, slots=True)
class Says:
    """One message for whatever is wrong with a value, where pydantic's own would be many or unclear."""

    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(handler(source), "form", custom_error_message=self.message)


@dataclass(frozen=True, slots=True)
class Keyed:
    """A list that is a map by one field of its items (list map key): no key occurs twice."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        keys = [getattr(item, self.key) for item in items]
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            message = "{key} {names} occurs more than once; keep one"
            raise PydanticCustomError("repeated", message, {"key": self.key, "names": ", ".join(repeated)})
        return items


class Model(BaseModel):
    """A frozen value of the contract; JSON in camelCase."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self, info: ValidationInfo) -> Self:
        # Without a context the value comes from our own code or store, and was judged before: it is not judged again.
        local = info.context is None or bool(info.context.get("local"))
        for rule in type(self).RULES:
            if not (rule.cluster_only and local) and not rule.check(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message, "field": rule.field or ""})
        return self

    def to_json(self) -> dict[str, Any]:
        """The object as plain JSON data, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class FieldError(Exception):
    """Input that does not fit the contract: all that is wrong with it, as (field, message), a line each."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{field}: {message}" for field, message in errors))
        self.errors = errors


ModelT = TypeVar("ModelT", bound=Model)
_LONG = re.compile(r"\d{19}")


def parse(model: type[ModelT], data: dict[str, Any], *, local: bool = False) -> ModelT:
    """Validate strictly; as for the API server, a null is an absent field. Raises FieldError."""
    try:
        return model.model_validate_json(_text(data), by_name=False, context={"local": local})
    except ValidationError as error:
        raise FieldError(field_errors(error)) from None


def parse_stored(model: type[ModelT], data: dict[str, Any]) -> tuple[ModelT, list[str]]:
    """Validate what the API server stored: unknown fields are ignored and named. Raises FieldError for the rest."""
    text = _text(data)
    with contextlib.suppress(ValidationError):  # the usual case, without the walk that looks for unknown fields
        return model.model_validate_json(text, by_name=False), []
    try:
        value = model.model_validate_json(text, by_name=False, extra="allow")
    except ValidationError as error:
        raise FieldError(field_errors(error)) from None
    ignored = sorted(_extras(value, ""))
    return model.model_validate_json(text, by_name=False, extra="ignore") if ignored else value, ignored


def _text(data: dict[str, Any]) -> str:
    """As JSON, without nulls. Raises FieldError for a whole number that the API server could not store."""
    text = json.dumps(data)
    if "null" in text:
        text = json.dumps(_without_nulls(data))
    if _LONG.search(text) and (where := list(_too_large(data, ""))):
        raise FieldError([(path, "is larger than a whole number may be") for path in where])
    return text


def _too_large(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _too_large(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _too_large(item, f"{path}[{i}]")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _extras(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}".lstrip(".") for name in value.model_extra or {})
        for name, field in type(value).model_fields.items():
            yield from _extras(getattr(value, name), f"{path}.{field.alias or name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _extras(item, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _extras(item, f"{path}[{key}]")
