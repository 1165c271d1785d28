"""A folder for each class: files that are rows themselves, of the class that their folder is named after.

They are listed as one object, whose tag changes with any of theirs; its rows are {image, label}, in the order of the
keys. Where tables lie beside them, these hold the rows and the files are what they name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from finetune_api.formats import Format, FormatChoice, holds_rows, is_image
from finetune_trainer.storage import ObjectInfo

FILE, CLASS = "image", "label"
"""The columns of their rows."""


def is_folder(keys: Sequence[str], wanted: FormatChoice) -> bool:
    """Whether these objects are files that are rows: images, without a table among them."""
    return wanted == "auto" and any(map(is_image, keys)) and not any(map(holds_rows, keys))


def without_files(found: Sequence[ObjectInfo], wanted: str) -> list[ObjectInfo]:
    """The tables alone, where they lie among images."""
    tables = wanted == "auto" and any(holds_rows(info.key) for info in found)
    return [info for info in found if not (tables and is_image(info.key))]


def as_object(found: Sequence[ObjectInfo], root: str) -> tuple[ObjectInfo, Format]:
    """All of them as one object, `root` its key."""
    digest = hashlib.sha256()
    for info in found:
        digest.update(f"{info.key}\0{info.size}\0{info.etag}\n".encode("utf-8", "surrogateescape"))
    return ObjectInfo(root, sum(info.size for info in found), digest.hexdigest()), Format("files")


def class_of(key: str, root: str) -> str | None:
    """The name of the folder that a file lies in; None where that is not below `root`."""
    inner = key.removeprefix(root).strip("/")
    return inner.split("/")[-2] if "/" in inner else None
