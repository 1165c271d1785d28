"""Copies of large compressed objects, cut into small blocks: plain gzip and zstd have no place to start reading in the middle.

Only needed where a source is too large to be held whole: there a window must draw from many blocks. The copies lie below the
output's prefix, are announced, and are swept when the job has succeeded.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding
from finetune_trainer.prepare.scan import ObjectScan
from finetune_trainer.storage import Location, ObjectInfo, ObjectStore
from finetune_trainer.stream import order
from finetune_trainer.stream.blocks import CACHE, to_bytes
from finetune_trainer.stream.manifest import BLOCK_BYTES, Block, DataObject, Source

LARGEST_BLOCK = 4 * BLOCK_BYTES
MOST_BYTES = 64 << 30


def reblock(
    source: Source, role: str, store: ObjectStore, out: Location, columns: Sequence[str],
    *, full: int = order.FULL_BYTES, largest: int = LARGEST_BLOCK, most: int = MOST_BYTES,
) -> tuple[Source, list[Finding]]:  # fmt: skip
    """The source with copied blocks where they are needed. Raises JobError when that is too much to copy."""
    sizes = [sum(block.size for block in item.blocks) for item in source.objects]
    if sum(sizes) <= full:
        return source, []
    large = [n for n, item in enumerate(source.objects) if item.format.compression and sizes[n] > largest]
    total = sum(sizes[n] for n in large)
    if not large:
        return source, []
    if total > most:
        raise JobError(
            Reason.INVALID_DATA, f"{source.uri}: {len(large)} compressed objects hold {total / 2**30:.0f} GiB that cannot be read in parts; "
            f"{most >> 30} GiB may be copied",
            field=f"spec.data.{role}.uri", hint=f"Write objects of at most {largest >> 20} MiB before compression, or parquet, or uncompressed jsonl.",
        )  # fmt: skip
    objects = list(source.objects)
    for n in large:
        objects[n] = _copy(objects[n], f"{role}-{n:06}", store, out, columns)
    message = f"{len(large)} large compressed objects ({total / 2**20:.0f} MiB) were copied in small blocks to {out.uri(CACHE)}; deleted when the job succeeds."
    return dataclasses.replace(source, objects=tuple(objects)), [
        Finding(kind="Copied", count=len(large), message=message[:384])
    ]


def _copy(item: DataObject, name: str, store: ObjectStore, out: Location, columns: Sequence[str]) -> DataObject:
    import zstandard

    blocks: list[Block] = []
    rows: list[bytes] = []
    first_line, size = 1, 0

    def write() -> None:
        nonlocal rows, size
        data = zstandard.compress(b"".join(row + b"\n" for row in rows), 3)
        key = f"{name}-{len(blocks):06}.jsonl.zst"
        out.put(f"{CACHE}{key}", data)
        done = sum(block.rows for block in blocks)
        blocks.append(Block(0, len(data), done, len(rows), first_line, size, zlib.crc32(data), key))
        rows, size = [], 0

    for _, line, values in ObjectScan(store, ObjectInfo(item.key, item.size, item.etag), item.format, columns):
        raw = to_bytes(values, columns)
        if rows and size + len(raw) > BLOCK_BYTES:
            write()
        if not rows:
            first_line = line
        rows.append(raw)
        size += len(raw) + 1
    if rows:
        write()
    return dataclasses.replace(item, blocks=tuple(blocks))
