"""The texts of a spec that have a form: URIs, endpoints, names; each says in words what it must be.

A file:// URI is for `finetune run` only; the rule that refuses it in a cluster stands here too.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

from finetune_api.base import Form, Rule, cel_text

# No spaces, control characters, fragments or credentials; \p{Z} since \s means different things to RE2 and Rust.
_PATH, _GLOB = r"[^\p{Z}\p{Cc}?#*]", r"[^\p{Z}\p{Cc}#]"
_S3, _HF, _FILE = r"s3://[A-Za-z0-9][-A-Za-z0-9._]*(/{0}*)?", r"hf://[A-Za-z0-9]{0}*", r"file:///{0}+"


def _uri(path: str, *schemes: str) -> str:
    return "^(" + "|".join(scheme.replace("{0}", path) for scheme in schemes) + ")$"


_ENCODED = "a file:// URI has %20 for it"
_SPACED = f"must not hold a space, which no s3:// or hf:// URI can name: choose another prefix; {_ENCODED}"
_SPACED_GLOB = f"must not hold a space: in an s3:// URI write ? for it, which stands for any one character; {_ENCODED}"
_S3_URI = Form(_uri(_PATH, _S3, _FILE), "must be s3://bucket/prefix, or file:///folder with `finetune run`", _SPACED)
S3Uri = Annotated[str, StringConstraints(max_length=1024), _S3_URI]
OutputUri = Annotated[str, StringConstraints(max_length=640), _S3_URI]
"""Shorter: what lies below it must stay within S3's 1024 bytes and the status' bounds."""
ModelUri = Annotated[
    str,
    StringConstraints(max_length=1024),
    Form(
        _uri(_PATH, _S3, _HF, _FILE),
        "must be s3://bucket/prefix, hf://organisation/name, or file:///folder with `finetune run`",
        _SPACED,
    ),
]
DataUri = Annotated[
    str,
    StringConstraints(max_length=1024),
    Form(
        _uri(_GLOB, _S3, _HF, _FILE),
        "must be s3://bucket/prefix/*.jsonl, hf://organisation/data-set, or file:///path with `finetune run`",
        _SPACED_GLOB,
    ),
]
Endpoint = Annotated[
    str,
    StringConstraints(max_length=512),
    Form(
        r"^https?://[^\p{Z}\p{Cc}/?#@]+/?$",
        "must be http://host:port or https://host:port, without a path or credentials",
    ),
]
Revision = Annotated[
    str, StringConstraints(max_length=128), Form(r"^[^\p{Z}\p{Cc}]+$", "must be a branch, tag or commit")
]
Split = Annotated[
    str, StringConstraints(max_length=128), Form(r"^[^\p{Z}\p{Cc}]+$", "must be the name of a split, such as train")
]
Region = Annotated[
    str,
    StringConstraints(max_length=64),
    Form(r"^[-A-Za-z0-9._]+$", "must be the name of a region, such as eu-central-1"),
]
Image = Annotated[
    str,
    StringConstraints(max_length=512),
    Form(r"^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$", "must be an image, such as registry.example.org/trainer:1.0"),
]
Namespace = Annotated[
    str,
    StringConstraints(max_length=63),
    Form(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "must be lower-case letters, digits and -, starting and ending with a letter or digit",
    ),
]
SetName = Annotated[
    str,
    StringConstraints(max_length=32),
    Form(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "must be at most 32 lower-case letters, digits and -, starting and ending with a letter or digit",
    ),
]
Column = Annotated[str, StringConstraints(min_length=1, max_length=256)]

_NO_FILE = "file:// is for `finetune run` on this machine; pods cannot see it: upload the files to s3:// and name them"


def no_file(field: str = "uri", optional: bool = False) -> Rule:
    guard = f"!has(self.{field}) || " if optional else ""
    snake = {"resumeFrom": "resume_from"}.get(field, field)
    return Rule(
        f"{guard}!self.{field}.startsWith('file://')",
        _NO_FILE,
        lambda s: not (getattr(s, snake) or "").startswith("file://"),
        field=field,
        cluster_only=True,
    )


REVISION_OF_HUB = Rule(
    "!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
    "only hf:// URIs have revisions; remove it, or put the version into the path",
    lambda s: s.revision is None or (s.uri or "").startswith("hf://"),
    field="revision",
)


_FOLDER = r"^[^*?]*/"
_ANY_DEPTH, _OF_OURS = r"\*\*|[*?][^/]*/", r"/\*(\.json[^/]*)?$"
"""A pattern that reaches into folders; one whose last part would match files that a job writes."""


def reads(uri: str, output: str) -> bool:
    """Whether the files of a job with this output would be among those that a data URI names."""
    output = f"{output.removesuffix('/')}/"
    if not re.search(r"[*?]", uri):
        return output.startswith(f"{uri.removesuffix('/')}/")
    found = re.search(_FOLDER, uri)
    folder = found.group() if found else uri
    return output.startswith(folder) and bool(
        re.search(_ANY_DEPTH, uri) or (output == folder and re.search(_OF_OURS, uri))
    )


def reads_cel(uri: str, output: str) -> str:
    """`reads` for the API server."""
    out = f"({output}.endsWith('/') ? {output} : {output} + '/')"
    folder, plain = f"{uri}.find({cel_text(_FOLDER)})", f"({uri}.endsWith('/') ? {uri} : {uri} + '/')"
    glob = f"{uri}.matches('[*?]')"
    inner = f"({uri}.matches({cel_text(_ANY_DEPTH)}) || ({out} == {folder} && {uri}.matches({cel_text(_OF_OURS)})))"
    return f"({glob} ? {out}.startsWith({folder}) && {inner} : {out}.startsWith({plain}))"
