"""Copies of large blocks, cut into small ones: plain gzip and zstd have no place to start reading in the middle, nor
has a row group.

Only needed where a source is too large to be held whole: there a window must draw from many blocks. Of parquet, whose
row groups are read by ranges, only those are copied that are more of the set than a window should draw from one place.
The copies lie below the output's prefix, are announced, and are swept when the job has succeeded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding
from finetune_trainer.prepare.rows.copies import BlockWriter
from finetune_trainer.prepare.rows.scan import ROW_BYTES, ObjectScan
from finetune_trainer.storage import Location, ObjectInfo, ObjectStore
from finetune_trainer.stream import order
from finetune_trainer.stream.blocks import CACHE, to_bytes
from finetune_trainer.stream.formats.parquet import ParquetReader
from finetune_trainer.stream.manifest import BLOCK_BYTES, Block, DataObject, Source

LARGEST_BLOCK = 4 * BLOCK_BYTES
MOST_BYTES = 64 << 30


def weigh(source: Source, weights: Sequence[Sequence[int]], *, full: int = order.FULL_BYTES) -> Source:
    """The source with the size of each block as it is held in memory, where that is more than can be held whole.

    weights: bytes of each block of each object. Stored sizes mislead: a dictionary of parquet holds a repeated text
    once.
    """
    if sum(map(sum, weights)) <= full:
        return source
    objects = []
    for item, sizes in zip(source.objects, weights, strict=True):
        blocks = [dataclasses.replace(block, size=size) for block, size in zip(item.blocks, sizes, strict=True)]
        objects.append(dataclasses.replace(item, blocks=tuple(blocks)))
    return dataclasses.replace(source, objects=tuple(objects))


def reblock(
    source: Source,
    role: str,
    store: ObjectStore,
    out: Location,
    columns: Sequence[str],
    *,
    full: int = order.FULL_BYTES,
    largest: int = LARGEST_BLOCK,
    most: int = MOST_BYTES,
    version: int = order.ROW_RANGES,
) -> tuple[Source, list[Finding]]:
    """The source with copied blocks where they are needed. Raises JobError when that is too much to copy.

    version: of the order that it is for; the first one knows no ranges of rows, and leaves parquet as it is.
    """
    sizes = [sum(block.size for block in item.blocks) for item in source.objects]
    if sum(sizes) <= full:
        return source, []
    packed = {
        (n, 0)
        for n, item in enumerate(source.objects)
        if item.format.name != "parquet" and not item.format.splittable and sizes[n] > largest and not _copied(item)
    }
    total = sum(sizes[n] for n, _ in packed)
    if total > most:
        raise JobError(
            Reason.INVALID_DATA,
            f"{source.uri}: {len(packed)} compressed objects or JSON arrays hold {total / 2**30:.0f} GiB that cannot be"
            f" read in parts; {most >> 30} GiB may be copied",
            field=f"spec.data.{role}.uri",
            hint=f"Write objects of at most {largest >> 20} MiB before compression, or parquet, or uncompressed jsonl.",
        )
    groups = set() if version < order.ROW_RANGES else _row_groups(source, max(largest, sum(sizes) // order.MIN_BLOCKS))
    heavy = sum(source.objects[n].blocks[b].size for n, b in groups)
    chosen = packed | (groups if total + heavy <= most else set())
    if not chosen:
        return source, []
    objects = list(source.objects)
    for n in sorted({n for n, _ in chosen}):
        copies = _Copies(objects[n], f"{role}-{n:06}", store, out, columns, version)
        objects[n] = copies.of({b for number, b in chosen if number == n})
    total = sum(source.objects[n].blocks[b].size for n, b in chosen)
    what = "large row groups" if not packed else "large compressed objects" if chosen == packed else "large objects"
    message = (
        f"{len(chosen)} {what} ({total / 2**20:.0f} MiB) were copied in small blocks to {out.uri(CACHE)}; deleted when"
        " the job succeeds."
    )
    return dataclasses.replace(source, objects=tuple(objects)), [
        Finding(kind="Copied", count=len(chosen), message=message[:384])
    ]


def _row_groups(source: Source, largest: int) -> set[tuple[int, int]]:
    """(object, block) of the row groups that are larger."""
    found = [(n, item) for n, item in enumerate(source.objects) if item.format.name == "parquet" and not _copied(item)]
    return {(n, b) for n, item in found for b, block in enumerate(item.blocks) if block.size > largest}


def _copied(item: DataObject) -> bool:
    """Whether its rows lie in blocks of the job's own already."""
    return any(block.cache for block in item.blocks)


class _Copies:
    """Of one object."""

    def __init__(
        self, item: DataObject, name: str, store: ObjectStore, out: Location, columns: Sequence[str], version: int
    ) -> None:
        self._item, self._name, self._store, self._out, self._columns = item, name, store, out, columns
        self._version = version

    def of(self, chosen: set[int]) -> DataObject:
        """The object with these blocks replaced by copies."""
        blocks: list[Block] = []
        for n, block in enumerate(self._item.blocks):
            blocks.extend(self._copied(n, block) if n in chosen else [block])
        return dataclasses.replace(self._item, blocks=tuple(blocks))

    def _copied(self, n: int, block: Block) -> Iterator[Block]:
        grouped = self._item.format.name == "parquet"
        writer = BlockWriter(self._out, f"{self._name}-{n:06}" if grouped else self._name, block.row)
        for line, raw in self._group(block) if grouped else self._whole():
            writer.add(raw, line)
        overhead = ROW_BYTES if self._version >= order.ROW_RANGES else 0
        return (dataclasses.replace(copy, size=copy.size + copy.rows * overhead) for copy in writer.done())

    def _whole(self) -> Iterator[tuple[int, bytes]]:
        info = ObjectInfo(self._item.key, self._item.size, self._item.etag)
        for _, line, values in ObjectScan(self._store, info, self._item.format, self._columns):
            yield line, to_bytes(values, self._columns)

    def _group(self, block: Block) -> Iterator[tuple[int, bytes]]:
        reader = ParquetReader(self._store, self._item.key, self._item.size, self._item.etag)
        for line, values in enumerate(reader.rows(block.start, self._columns), block.line):
            yield line, to_bytes(values, self._columns)
