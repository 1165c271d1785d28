"""A chunk of rows in a file: the states of its examples one after the other, to be mapped into memory, and what is left
of each row's examples.

The file tells its key and a checksum; it appears under its name whole or not at all. What is left of the examples is
pickled row by row: it lies in this pod's own scratch, and nothing but examples is loaded from it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune_trainer.batches.example import Example
from finetune_trainer.trunk.kept_example import KeptExample

Rows = Sequence[Sequence[KeptExample]]
"""The examples of each row."""
ALIGNED = 64
"""Bytes that each part of a file begins at a multiple of."""
TRUSTED = "finetune_trainer.batches."


class DamagedChunk(ValueError):
    """The file is torn, or of another run; the message says which."""


def write_chunk(path: Path, key: str, rows: Rows) -> int:
    """Write it under a name of its own first; the bytes written. Raises OSError where there is no space."""
    parts: list[bytes | memoryview] = []
    tensors: list[dict[str, Any]] = []
    examples = [example for row in rows for example in row]
    places: list[list[tuple[int, int] | None]] = [[] for _ in examples]
    at = 0

    def add(part: bytes | memoryview) -> int:
        nonlocal at
        start, missing = at, -len(part) % ALIGNED
        parts.extend([part, bytes(missing)])
        at += len(part) + missing
        return start

    for i in range(len(examples[0].states) if examples else 0):
        states = [example.states[i] for example in examples]
        held = [state for state in states if state is not None]
        first = 0
        for own, state in zip(places, states, strict=True):
            own.append(None if state is None else (first, first + len(state)))
            first += 0 if state is None else len(state)
        if not held:
            tensors.append({})
            continue
        whole = torch.cat(held)
        start = add(memoryview(whole.view(torch.uint8).numpy()).cast("B"))
        dtype = str(whole.dtype).removeprefix("torch.")
        tensors.append({"dtype": dtype, "shape": list(whole.shape), "at": start})
    bounds, texts, n = [0], [], 0
    for row in rows:
        left = [(e.rest, e.padded, e.tokens, places[n + k]) for k, e in enumerate(row)]
        n += len(row)
        texts.append(pickle.dumps(left, protocol=5))
        bounds.append(bounds[-1] + len(texts[-1]))
    start = add(b"".join(texts))
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    head = {"key": key, "crc": crc, "size": at, "tensors": tensors, "rows": bounds, "at": start}
    line = json.dumps(head).encode()
    line += b" " * (-(len(line) + 1) % ALIGNED) + b"\n"
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(line)
            for part in parts:
                file.write(part)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(line) + at


def check_storable(examples: Sequence[KeptExample]) -> None:
    """Whether what is left of these can be written and read again. Raises DamagedChunk."""
    try:
        _Unpickler(io.BytesIO(pickle.dumps([example.rest for example in examples], protocol=5))).load()
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise DamagedChunk(str(error)) from None


class ChunkFile:
    """A chunk, mapped into memory: it stays whole although its file may be deleted."""

    def __init__(self, path: Path, key: str, *, check: bool = False) -> None:
        """Raises DamagedChunk, also where there is no file. `check`: compare the checksum, too."""
        try:
            with path.open("rb") as file:
                line = file.readline()
            head = json.loads(line)
            if head["key"] != key:
                raise DamagedChunk("it is of another run")
            content = np.memmap(path, np.uint8, "c", offset=len(line))
            if len(content) != head["size"] or (check and zlib.crc32(content.data) != head["crc"]):
                raise DamagedChunk("it is torn")
            self._bounds, self._tensors = head["rows"], [_tensor(content, each) for each in head["tensors"]]
            self._left = content[head["at"] :]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedChunk(f"{path.name}: {error}") from None

    def examples(self, row: int) -> list[KeptExample]:
        """Those of the row at this place in the chunk."""
        found = []
        text = self._left[self._bounds[row] : self._bounds[row + 1]].tobytes()
        for rest, padded, tokens, places in _Unpickler(io.BytesIO(text)).load():
            states = tuple(
                None if whole is None or at is None else whole[slice(*at)]
                for whole, at in zip(self._tensors, places, strict=True)
            )
            found.append(KeptExample(rest, states, padded, tokens))
        return found


def _tensor(content: np.ndarray, form: dict[str, Any]) -> torch.Tensor | None:
    if not form:
        return None
    dtype: torch.dtype = getattr(torch, form["dtype"])
    size = int(np.prod(form["shape"])) * dtype.itemsize
    return torch.from_numpy(content[form["at"] : form["at"] + size]).view(dtype).view(form["shape"])


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Examples, also those of a task's own module that is in use, and what they are made of."""
        if module.startswith(TRUSTED):
            return super().find_class(module, name)
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type) and issubclass(found, Example):
            return found
        raise DamagedChunk(f"it holds a {module}.{name}")
