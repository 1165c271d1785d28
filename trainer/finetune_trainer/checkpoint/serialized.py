"""Tensors as the bytes of a safetensors file, read from where they lie: a part is never copied whole to be written.

Layout: the header's length (8 bytes, little-endian), a JSON header padded to 8 bytes, then the tensors one after the
other, the widest numbers first, so that each begins at a multiple of its width.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Mapping

import torch

PIECE = 8 << 20
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


class Serialized:
    """Bytes [0, size) of a safetensors file, or of one blob. The tensors must not change meanwhile."""

    def __init__(self, spans: list[memoryview]) -> None:
        self._spans = [span for span in spans if len(span)]
        self._starts = [0]
        for span in self._spans:
            self._starts.append(self._starts[-1] + len(span))
        self.size = self._starts.pop()

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Serialized:
        """A safetensors file with these tensors (contiguous, on the CPU)."""
        order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
        header: dict[str, object] = {}
        end = 0
        for name in order:
            tensor = tensors[name]
            start, end = end, end + tensor.nbytes
            header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return cls([memoryview(len(text).to_bytes(8, "little") + text), *(_span(tensors[name]) for name in order)])

    def read(self, start: int, end: int) -> bytes:
        """A copy of bytes [start, end)."""
        return b"".join(self._views(start, end))

    def pieces(self) -> Iterator[memoryview]:
        """All bytes in order, in pieces that are no copies."""
        for start in range(0, self.size, PIECE):
            yield from self._views(start, min(start + PIECE, self.size))

    def _views(self, start: int, end: int) -> Iterator[memoryview]:
        n = max(0, bisect.bisect_right(self._starts, start) - 1)
        while start < end:
            first, span = self._starts[n], self._spans[n]
            taken = span[start - first : end - first]
            yield taken
            start += len(taken)
            n += 1


def _span(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())
