"""What a safetensors file holds, from its header alone: names, number formats and shapes, without reading a weight."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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


def weight_files(names: Iterable[str]) -> list[str]:
    """Which of a folder's files hold the model's weights: the one file, else all shards."""
    tensors = sorted(n for n in names if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", n))
    return ["model.safetensors"] if "model.safetensors" in tensors else tensors


def headers(folder: Path) -> dict[str, Stored]:
    """The tensors of all weights in a folder."""
    found: dict[str, Stored] = {}
    for path in _paths(folder):
        with open(path, "rb") as file:

            def read(start: int, end: int, file: BinaryIO = file) -> bytes:
                file.seek(start)
                return file.read(end - start)

            found |= header(read, path.name)
    return found


def read_tensors(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Some tensors of a folder's weights; those that are not there are left out."""
    from safetensors import safe_open

    wanted, found = set(names), {}
    for path in _paths(folder):
        with safe_open(str(path), "pt") as file:
            for name in wanted & set(file.keys()):
                found[name] = file.get_tensor(name)
    return found


def _paths(folder: Path) -> list[Path]:
    return [folder / name for name in weight_files(p.name for p in folder.iterdir())]
