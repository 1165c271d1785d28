"""A folder of files that are rows, read as an object's rows are: one row a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from finetune_api.records import Fault
from finetune_trainer.prepare.rows.scan import ObjectScan
from finetune_trainer.storage import ObjectInfo
from finetune_trainer.stream.manifest import Block, DataObject
from finetune_trainer.stream.sources.folders import CLASS, FILE, class_of
from finetune_trainer.stream.sources.listing import Listing


class FolderScan:
    """As ObjectScan, of the files of a listing; `file` is that of the row that came last, `name` its name."""

    def __init__(self, listing: Listing, *, labelled: bool = True) -> None:
        """`labelled`: a file that lies in no folder of a class is bad."""
        self._listing, self._labelled = listing, labelled
        self._info, self._kind = listing.objects[0]
        self.columns: Sequence[str] | None = (FILE, CLASS)
        self.key = self._info.key
        self.name = listing.store.name(self.key)
        self.file: ObjectInfo | None = None
        self.block = 0

    @property
    def weights(self) -> tuple[int, ...]:
        """Those of the table count."""
        return (0,)

    def weigh(self, size: int, block: int) -> None:
        """Those of the table count."""

    @property
    def result(self) -> DataObject:
        """The rows' blocks are those of the table that is made of them."""
        info = self._info
        blocks = (Block(0, info.size, 0, len(self._listing.files), 1, 0, 0),)
        return DataObject(info.key, info.size, info.etag, self._kind, blocks)

    def __iter__(self) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
        for row, info in enumerate(self._listing.files):
            self.name, self.file = self._listing.store.name(info.key), info
            name = class_of(info.key, self._info.key)
            if name is None and self._labelled:
                message = "lies in no folder of a class; put it into a folder named after its class, or leave it out"
                yield row, 0, Fault("NoClassFolder", message)
            else:
                yield row, 0, {FILE: self._listing.store.uri(info.key)} | ({CLASS: name} if name else {})


def scan_of(listing: Listing, number: int, columns: Sequence[str], *, labelled: bool = True) -> ObjectScan | FolderScan:
    """Of object `number`."""
    info, kind = listing.objects[number]
    return FolderScan(listing, labelled=labelled) if listing.files else ObjectScan(listing.store, info, kind, columns)
