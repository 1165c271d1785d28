"""Decompression that notices a missing end: a cut-off gzip or zstd stream is an error, never a shorter file."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO, cast

from finetune_api.formats import Compression

_CHUNK = 64 << 10
_LONGEST_WINDOW = 1 << 31


class DamagedStream(Exception):
    """The compressed bytes are not what the name says, or end too early."""


class _Counted(io.RawIOBase):
    """Passes bytes on, with their running CRC-32 and count."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.crc, self.count = source, 0, 0

    def read_chunk(self, size: int = _CHUNK) -> bytes:
        data = self.source.read(size)
        self.crc = zlib.crc32(data, self.crc)
        self.count += len(data)
        return data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read_chunk(len(view))
        view[: len(data)] = data
        return len(data)


class _Decompressed(io.RawIOBase):
    """The plain bytes of a gzip or zstd stream of one or more members; raises DamagedStream."""

    def __init__(self, source: _Counted, kind: Compression) -> None:
        self._source, self._kind = source, kind
        self._machine: Any = None
        self._waiting = b""  # compressed bytes not taken yet
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._waiting or self._source.read_chunk()
            self._waiting = b""
            if not data:
                if self._machine is not None:
                    raise DamagedStream("it ends in the middle")
                return 0
            self._ready = memoryview(self._step(data))
        view = memoryview(buffer).cast("B")
        taken = min(len(view), len(self._ready))
        view[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _step(self, data: bytes) -> bytes:
        try:
            if self._machine is None:
                if self._kind == "gz" and not data.strip(b"\0"):
                    return b""  # padding after the last member
                self._machine = _machine(self._kind)
            plain = self._machine.decompress(data)
        except (zlib.error, _zstd_error()) as error:
            raise DamagedStream(str(error)) from None
        if self._machine.eof:
            self._waiting, self._machine = self._machine.unused_data, None
        return cast(bytes, plain)


def _machine(kind: Compression) -> Any:
    if kind == "gz":
        return zlib.decompressobj(wbits=31)
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def plain_reader(source: BinaryIO, kind: Compression) -> tuple[BinaryIO, _Counted]:
    """A buffered reader of the decompressed bytes, and the counter of the stored ones (complete at the end)."""
    counted = _Counted(source)
    return io.BufferedReader(_Decompressed(counted, kind) if kind else counted, 1 << 18), counted
