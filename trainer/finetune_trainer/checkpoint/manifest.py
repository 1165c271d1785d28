"""The manifest that makes a checkpoint exist: its parts with their digests, the data cursor, and all state that is not
a tensor.

It is JSON and carries its own digest, so that a damaged manifest is found as surely as a damaged part (I5). Nothing in
a checkpoint is a pickle.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.checkpoint.digests import json_digest

VERSION = 1
NAME = "MANIFEST.json"
KEY = re.compile(r"^ckpt/(\d+)/(\d+)/MANIFEST\.json$")


class DamagedError(ValueError):
    """A checkpoint that is torn, corrupt or not what its place says. Never reaches the user: the run falls back."""


def folder(generation: int, step: int) -> str:
    """Where a checkpoint lies below the output."""
    return f"ckpt/{generation}/{step}"


@dataclass(frozen=True, slots=True)
class Part:
    """One object of a checkpoint. `tensors`: name -> [dtype, shape], in order; None for an opaque blob."""

    name: str
    namespace: str
    bytes: int
    crc32c: str
    sha256: str
    tensors: dict[str, tuple[str, tuple[int, ...]]] | None = None


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """See the module.

    `identity` must match to resume, `facts` describe the environment and should; `parent` is what was resumed from or
    saved before.
    """

    job_id: str
    job_name: str
    attempt: int
    generation: int
    step: int
    time: str
    writer: str
    cursor: dict[str, Any]
    meta: dict[str, Any]
    identity: dict[str, Any]
    facts: dict[str, Any]
    parts: tuple[Part, ...]
    metrics: dict[str, float] | None = None
    parent: dict[str, Any] | None = None
    version: int = VERSION
    digest: str = field(default="")

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    def shapes(self, namespace: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors in a namespace."""
        return {n: shape for p in self.parts if p.namespace == namespace for n, (_, shape) in (p.tensors or {}).items()}

    def sealed(self) -> tuple[CheckpointManifest, bytes]:
        """This manifest with its digest, and its text."""
        value = json.loads(json.dumps(dataclasses.asdict(self)))  # tuples become lists, as a reader will see them
        value.pop("digest")
        digest = json_digest(value)
        return dataclasses.replace(self, digest=digest), json.dumps({"digest": digest, **value}, indent=1).encode()


def parse(text: bytes) -> CheckpointManifest:
    """The manifest in `text`. Raises DamagedError."""
    try:
        value = json.loads(text)
        digest = value.pop("digest")
        if digest != json_digest(value):
            raise DamagedError("its manifest does not match its own digest")
        if value["version"] != VERSION:
            raise DamagedError(f"its manifest has version {value['version']}, this trainer reads {VERSION}")
        parts = tuple(_part(p) for p in value.pop("parts"))
        return CheckpointManifest(**value, parts=parts, digest=digest)
    except DamagedError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"its manifest cannot be read ({type(error).__name__})") from error


def _part(value: dict[str, Any]) -> Part:
    tensors = value.pop("tensors")
    return Part(**value, tensors=tensors and {n: (dtype, tuple(shape)) for n, (dtype, shape) in tensors.items()})
