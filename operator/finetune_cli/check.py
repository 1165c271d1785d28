"""Judge documents by the contract's own rules, and turn every finding into a line that a user can act on.

The rules are `finetune_api.base.parse`'s and nobody else's; what is added here is the place in the file, the closest
field names for one that does not exist, and the field's description where a value is refused (I9).
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from finetune_api import API_VERSION, GROUP, KIND
from finetune_api.base import FieldError, parse
from finetune_api.job import Manifest
from finetune_cli.manifest import Document, Finding, ManifestError, load


@dataclass(frozen=True, slots=True)
class Job:
    """A manifest that keeps every rule, and where it was read."""

    document: Document
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Checked:
    """What a set of files holds: the valid jobs, every finding, and the documents that are not ours."""

    jobs: tuple[Job, ...]
    findings: tuple[Finding, ...]
    foreign: tuple[Finding, ...]


def check_files(paths: Iterable[str], *, local: bool) -> Checked:
    """All jobs and all findings of all files; never stops at the first. `local` permits file:// and the like."""
    jobs: list[Job] = []
    findings: list[Finding] = []
    foreign: list[Finding] = []
    for path in dict.fromkeys(paths):
        try:
            documents = load(path)
        except ManifestError as error:
            findings += error.findings
            continue
        ours = [d for d in documents if is_ours(d.data)]
        strangers = [
            Finding(d.file, d.line, f"{_describe(d.data)} is not a {KIND}") for d in documents if d not in ours
        ]
        foreign += strangers if ours else []
        findings += [] if ours else [replace(f, message=f"{f.message}; {_FIX}") for f in strangers]
        for document in ours:
            try:
                jobs.append(Job(document, check(document, local=local)))
            except ManifestError as error:
                findings += error.findings
    return Checked(tuple(jobs), (*findings, *_shared_outputs(jobs)), tuple(foreign))


_FIX = f"a job starts with apiVersion: {API_VERSION} and kind: {KIND}"


def is_ours(data: Any) -> bool:
    """Whether a document is meant as a job of ours, if only by a misspelt kind."""
    if not isinstance(data, dict):
        return False
    kind, api = str(data.get("kind", "")), str(data.get("apiVersion", ""))
    return kind.casefold() == KIND.casefold() or api.split("/")[0] == GROUP or ("spec" in data and "kind" not in data)


def check(document: Document, *, local: bool) -> Manifest:
    """The manifest of a document. Raises ManifestError with every finding."""
    if not isinstance(document.data, dict):
        raise ManifestError(
            [Finding(document.file, document.line, f"{_describe(document.data)} is not a {KIND}; {_FIX}")]
        )
    try:
        return parse(Manifest, document.data, local=local)
    except FieldError as error:
        places = dict(_places(Manifest, document.data, ""))
        found = sorted(_findings(document, error, places), key=lambda f: f.line or 0)
        raise ManifestError(found) from None


def _shared_outputs(jobs: list[Job]) -> Iterator[Finding]:
    owners: dict[str, Job] = {}
    for job in jobs:
        uri = job.manifest.spec.output.uri.rstrip("/")
        owner = owners.setdefault(uri, job)
        if owner is not job:
            place = f"{owner.document.file}:{owner.document.line_of('spec.output.uri')}"
            message = f"is also the output of {owner.manifest.metadata.name} ({place}); give each job its own"
            field = "spec.output.uri"
            yield Finding(job.document.file, job.document.line_of(field), message, field)


@dataclass(frozen=True, slots=True)
class _Place:
    """What the contract says of one path of a document: its field, or the model that has no such field."""

    field: FieldInfo | None
    stranger_in: type[BaseModel] | None = None


def _places(model: type[BaseModel], data: dict[str, Any], path: str) -> Iterator[tuple[str, _Place]]:
    by_alias = {info.alias or name: info for name, info in model.model_fields.items()}
    for key, value in data.items():
        place = f"{path}.{key}".lstrip(".")
        info = by_alias.get(key)
        if info is None:
            yield place, _Place(None, model)
            continue
        yield place, _Place(info)
        inner = next(_models(info.annotation), None)
        if inner is not None and isinstance(value, dict):
            yield from _places(inner, value, place)
        elif inner is not None and isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _places(inner, item, f"{place}[{i}]")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        for argument in get_args(annotation):
            yield from _models(argument)


def _findings(document: Document, error: FieldError, places: dict[str, _Place]) -> Iterator[Finding]:
    values = dict(_flat(document.data, ""))
    seen: set[tuple[str, str]] = set()
    blamed = [_blame(*finding) for finding in error.errors]
    for path, message in blamed:
        if message.startswith("must have at least") and any(
            other.startswith((f"{path}[", f"{path}.")) for other, _ in blamed
        ):
            continue  # pydantic leaves refused items out, and then counts
        known = path
        while known and known not in values:
            known = known[: max(known.rfind("."), known.rfind("["), 0)]
        place = places.get(path)
        if place is not None and place.stranger_in is not None:
            message = _stranger(path, place.stranger_in)
        elif path != known and message.endswith("required"):
            message = f"{message}; add it{_explain(_field_below(places, known, path))}"
        elif place is not None and place.field is not None and ";" not in message:
            more = _explain(place.field) if len(message) < CURT else ""
            message = f"{message}{_choice(message, values.get(path)) or more}"
        if (path, message) not in seen:
            yield Finding(document.file, document.line_of(path), message, None if path == "(top)" else path)
        seen.add((path, message))


_BLAMES = re.compile(r"([A-Za-z.]+): (.*)", re.DOTALL)


def _blame(path: str, message: str) -> tuple[str, str]:
    """A rule's message starts with the field that it blames, seen from the rule's model: that belongs into the path."""
    if match := _BLAMES.match(message):
        blamed = f"{path.rpartition('.')[0]}.{match[1]}".lstrip(".")
        if blamed == path or blamed.startswith(f"{path}."):
            return blamed, match[2]
    return path, message


def _choice(message: str, value: Any) -> str:
    """The choice that was probably meant, where the message lists them."""
    choices = re.findall(r"'([^']+)'", message) if message.startswith("must be '") else []
    close = closest(value, choices) if isinstance(value, str) else []
    return f"; did you mean {close[0]}?" if close else ""


def _flat(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, data
    items = data.items() if isinstance(data, dict) else ()
    for key, value in items:
        yield from _flat(value, f"{path}.{key}".lstrip("."))
    for i, value in enumerate(data if isinstance(data, list) else ()):
        yield from _flat(value, f"{path}[{i}]")


def _field_below(places: dict[str, _Place], parent: str, path: str) -> FieldInfo | None:
    model: type[BaseModel] | None = Manifest
    if parent:
        place = places.get(parent.split("[")[0])
        model = next(_models(place.field.annotation), None) if place and place.field else None
    name = path.rsplit(".", 1)[-1]
    return next((i for n, i in model.model_fields.items() if (i.alias or n) == name), None) if model else None


def _explain(info: FieldInfo | None) -> str:
    return f" ({info.description.split('. ')[0].rstrip('.')})" if info is not None and info.description else ""


def _stranger(path: str, model: type[BaseModel]) -> str:
    parent, _, name = path.rpartition(".")
    here = [info.alias or n for n, info in model.model_fields.items()]
    close = closest(name, here)
    if close:
        return f"no such field; did you mean {' or '.join(close)}?"
    elsewhere = [p for p in FIELDS if p.rpartition(".")[2].casefold() == _plain(name)]
    if elsewhere:
        return f"no such field here; move it to {' or '.join(elsewhere[:3])}"
    return f"no such field; {parent or 'the manifest'} has {', '.join(here)}"


def closest(name: str, names: list[str]) -> list[str]:
    """The names that a writer most likely meant, at most two, the best first."""
    plain = {_plain(n): n for n in reversed(names)}
    found = difflib.get_close_matches(_plain(name), plain, n=2, cutoff=0.65)
    return [plain[f] for f in found][: 1 if found and found[0] == _plain(name) else 2]


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _paths(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        place = f"{path}.{info.alias or name}".lstrip(".")
        yield place
        for inner in _models(info.annotation):
            yield from _paths(inner, place)


FIELDS = tuple(path for path in _paths(Manifest, "") if path.startswith("spec."))
"""Every field of a spec, as spec.training.learningRate."""
CURT = 60
"""A shorter message says what is wrong, but not what the field is for."""


def _describe(data: Any) -> str:
    if isinstance(data, dict):
        return f"kind {data['kind']}" if data.get("kind") else "a document without a kind"
    return "a list" if isinstance(data, list) else "a plain text"
