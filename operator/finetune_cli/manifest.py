"""Read FineTuneJobs from YAML as kubectl does, and say for every finding the file and the line.

kubectl reads YAML with sigs.k8s.io/yaml, which differs from PyYAML: 2e-4 is a number, 3.0 becomes the integer 3, dates
stay strings, numbers outside 64 bits become floats. A file must mean here what it means there, so the scalars are
resolved by its rules. Duplicate keys are refused, and nothing a file can hold ends in a traceback (I9).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STDIN = "(stdin)"
MAX_BYTES = 3 << 20
"""The API server refuses larger bodies."""
MAX_NODES = 200_000
"""After aliases are followed: a few lines of aliases can stand for billions of nodes."""
MAX_DEPTH = 100

_PLAIN = "plain"
_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGERS = ((r"0[xX]([0-9a-fA-F]+)", 16), (r"0[bB]([01]+)", 2), (r"0[oO]?([0-7]+)", 8), (r"([1-9][0-9]*|0)", 10))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what to do."""

    file: str
    line: int | None
    message: str
    field: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class ManifestError(Exception):
    """A file that cannot be used: every finding."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = findings


def refusal(file: str, line: int | None, message: str) -> ManifestError:
    """The error of one finding about the file as a whole, or one line of it."""
    return ManifestError([Finding(file, line, message)])


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document as JSON data; `lines` gives the line of every field by its path, as spec.data.labels[1]."""

    file: str
    line: int
    data: Any
    lines: dict[str, int] = field(repr=False)

    def line_of(self, path: str) -> int:
        """The line of a field, or of the closest one above it."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, self.line)


def read_text(path: str) -> str:
    """The text of a file, or of the standard input for "-". Raises ManifestError."""
    name = STDIN if path == "-" else path
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refusal(name, None, why_unreadable(error)) from None
    if len(raw) > MAX_BYTES:
        raise refusal(name, None, f"larger than {MAX_BYTES >> 20} MiB; this is not a manifest")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refusal(name, line, "not UTF-8 text; save the file as UTF-8") from None


def why_unreadable(error: OSError) -> str:
    """An operating system's error in the words of a user, with what to do."""
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the manifest file in it"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable for you"
    return f"cannot be read: {error.strerror or error}"


def read_documents(text: str, name: str = STDIN) -> list[Document]:
    """All documents of the text, empty ones left out. Raises ManifestError at the first place that is not YAML."""
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise refusal(name, mark.line + 1 if mark else None, _yaml_problem(error, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"U+{ord(text[error.position]):04X}"
        raise refusal(name, line, f"not YAML: the character {what} is not allowed; remove it") from None
    except yaml.YAMLError as error:
        raise refusal(name, None, f"not YAML: {error}") from None
    except RecursionError:
        raise refusal(name, None, f"nested more than {MAX_DEPTH} levels deep; this is not a manifest") from None
    documents = []
    for node in nodes:
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN and node.value in _NULL):
            continue
        reader = _Reader(name)
        data = reader.value(node, "", 0)
        if reader.findings:
            raise ManifestError(reader.findings)
        documents.append(Document(name, node.start_mark.line + 1, data, reader.lines))
    return documents


def load(path: str) -> list[Document]:
    """The documents of a file or of the standard input ("-"); at least one. Raises ManifestError."""
    name = STDIN if path == "-" else path
    documents = read_documents(read_text(path), name)
    if not documents:
        raise refusal(name, None, "holds no document; `finetune init DATA_FILE` writes a manifest to start from")
    return documents


class _Loader(yaml.BaseLoader):
    """PyYAML's parser without its resolver: plain scalars keep a mark of their own, explicit tags stay."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)


class _Reader:
    """Turns nodes into JSON data, remembering the line of every path."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}
        self.findings: list[Finding] = []
        self.count = 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            what = f"nested more than {MAX_DEPTH} levels deep" if depth > MAX_DEPTH else f"more than {MAX_NODES} values"
            raise refusal(self.name, node.start_mark.line + 1, f"{what}; this is not a manifest")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        try:
            return scalar(node.value, None if node.tag == _PLAIN else node.tag)
        except ValueError as error:
            self._find(node, path, str(error))
            return None

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        explicit: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._find(key_node, path, "a key must be a word, not a list or map")
                continue
            if key_node.value == "<<" and key_node.tag == _PLAIN:
                merged: dict[str, Any] = {}
                for source in self._merge_sources(value_node, path):
                    merged = self.value(source, path, depth + 1) | merged
                found |= merged  # go-yaml merges where << stands: over the keys above, under those below
                continue
            key = self._key(key_node)
            if key is None:
                self._find(key_node, path, "a key must not be null; put it into quotes if it is meant as text")
                continue
            place = f"{path}.{key}".lstrip(".")
            if key in explicit:
                self._find(key_node, place, f"set twice (first in line {explicit[key]}); remove one of them")
                continue
            self.lines[place] = explicit[key] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, place, depth + 1)
        return found

    def _merge_sources(self, node: yaml.Node, path: str) -> Iterator[yaml.MappingNode]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                yield source
            else:
                self._find(node, path, "<< takes a map or a list of maps")

    def _key(self, node: yaml.ScalarNode) -> str | None:
        value = node.value if node.tag != _PLAIN else scalar(node.value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if value is None else str(value)

    def _find(self, node: yaml.Node, path: str, message: str) -> None:
        self.findings.append(Finding(self.name, node.start_mark.line + 1, message, path or None))


def scalar(text: str, tag: str | None = None) -> Any:
    """The JSON value of a YAML scalar by go-yaml's rules; `tag` is None for a plain one. Raises ValueError."""
    if tag is not None:
        return _tagged(text, tag)
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _SPECIAL.fullmatch(text):
        raise ValueError(f"{text} is not a number that JSON can hold; give a finite one")
    if text[0] in "+-.0123456789":
        number = _number(text)
        if number is not None:
            return number
    return text


def _number(text: str) -> int | float | None:
    plain = text.replace("_", "")
    digits = plain.lstrip("+-") if plain[:1] in "+-" else plain
    sign = -1 if plain.startswith("-") else 1
    for pattern, base in _INTEGERS:
        if len(plain) - len(digits) <= 1 and (match := re.fullmatch(pattern, digits)):
            value = sign * int(match[1], base)
            return value if -(2**63) <= value < 2**63 else float(value)
    if not _FLOAT.fullmatch(plain):
        return None
    number = float(plain)
    if math.isinf(number):  # Go's parser refuses it, and go-yaml goes on with a string
        return None
    return int(number) if number.is_integer() and abs(number) < 2**63 else number


def _tagged(text: str, tag: str) -> Any:
    name = tag.removeprefix(_TAG)
    if name == "str":
        return text
    value = scalar(text)
    fits = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
    if name not in fits:
        raise ValueError(f"the YAML tag {tag.replace(_TAG, '!!')} is not supported; remove it")
    if type(value) not in fits[name]:
        raise ValueError(f"not a value of the YAML tag !!{name}; correct it or remove the tag")
    return value


def _yaml_problem(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = error.problem or error.context or "it cannot be read"
    if "'\\t'" in problem:
        return "not YAML: a tab stands where spaces must; indent with spaces"
    hint = ""
    if "mapping values are not allowed here" in problem:
        hint = '; check the indentation, and put a text with ": " into quotes'
    elif "could not find expected ':'" in problem or "expected <block end>" in problem:
        hint = "; check the indentation of this line and the one before"
    elif "found undefined alias" in problem:
        hint = "; define the anchor first, or put the text into quotes"
    elif "expected ',' or" in problem:
        hint = "; a bracket or brace is not closed"
    return f"not YAML: {problem}{hint}"
