"""What a safetensors file holds, from its header alone: names, number formats and shapes, without reading a weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.facts import FIELD

MOST = 100_000_000
"""Bytes of a header; the format itself allows no more."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file. `dtype` in the format's own words: F32, BF16, I64, …"""

    dtype: str
    shape: tuple[int, ...]


def header(read: Callable[[int, int], bytes], name: str) -> dict[str, Stored]:
    """The tensors of a file, by `read(start, end)` of its bytes. Raises JobError where it is no safetensors file."""
    try:
        size = int.from_bytes(read(0, 8), "little")
        if not 2 <= size <= MOST:
            raise ValueError(f"a header of {size} bytes")
        found = json.loads(read(8, 8 + size))
        return {
            str(tensor): Stored(str(said["dtype"]), tuple(int(n) for n in said["shape"]))
            for tensor, said in found.items()
            if tensor != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(
            Reason.MODEL_NOT_FOUND,
            f"{name} is not a safetensors file: {error}"[:300],
            field=FIELD,
            hint="Write the file again; it may have been cut off, or be a pointer to one kept elsewhere.",
        ) from None


def headers(folder: Path) -> dict[str, Stored]:
    """The tensors of all weights in a folder."""
    found: dict[str, Stored] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:

            def read(start: int, end: int, file: object = file) -> bytes:
                file.seek(start)  # type: ignore[attr-defined]
                return bytes(file.read(end - start))  # type: ignore[attr-defined]

            found |= header(read, path.name)
    return found
