"""Bring a model's files to this node.

A file:// folder is used in place. s3:// and hf:// models are written to scratch once per node (the launcher does it
before it starts the workers), in parallel ranges; a file that an earlier attempt brought is recognised by size and tag.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.model.facts import FIELD
from finetune_trainer.model.files import check_index, wanted
from finetune_trainer.model.hub import fetch_from_hub, hub_info, stored_on_hub
from finetune_trainer.model.weights import Stored, header, headers, weight_files
from finetune_trainer.storage import Location, ObjectInfo, location

PART = 32 * 1024 * 1024
THREADS = 4


def fetch_model(config: RunConfig, *, weights: bool = True, revision: str | None = None) -> Path:
    """The folder with the model's files. `weights=False` brings the small ones only, but still checks that weights
    exist.

    `revision` is the commit that the prepare step resolved (hf:// only). Raises JobError: ModelNotFound, UnsafeModel,
    AccessDenied, StorageUnavailable.
    """
    uri = config.model.uri
    if uri.startswith("hf://"):
        folder = fetch_from_hub(config, weights, revision or config.model.revision, granted=revision is not None)
        check_index(folder)
        return folder
    if uri.startswith("file://"):
        folder = Path(unquote(urlsplit(uri).path))
        if not folder.is_dir():
            raise JobError(Reason.MODEL_NOT_FOUND, f"{folder} is not a folder", field=FIELD)
        wanted((p.name for p in folder.iterdir() if p.is_file()), str(folder), weights)
        check_index(folder)
        return folder
    source = location(uri, config.storage)
    listed = {info.key: info for info in source.list() if "/" not in info.key}
    names = wanted(listed, uri, weights)
    folder = _scratch(config, uri)
    _download(source, [listed[name] for name in names], folder)
    check_index(folder)
    return folder


def stored_weights(config: RunConfig, *, revision: str | None = None) -> dict[str, Stored]:
    """What the model's weight files hold, by their headers: nothing else of them is brought."""
    uri = config.model.uri
    if uri.startswith("file://"):
        return headers(Path(unquote(urlsplit(uri).path)))
    if uri.startswith("hf://"):
        return stored_on_hub(config, revision or config.model.revision)
    found: dict[str, Stored] = {}
    source = location(uri, config.storage)
    for name in weight_files(info.key for info in source.list()):

        def read(start: int, end: int, name: str = name) -> bytes:
            return source.get(name, start=start, end=end)

        found |= header(read, name)
    return found


def resolve_revision(config: RunConfig) -> str | None:
    """The commit that an hf:// model's revision means now; None for other URIs."""
    if not config.model.uri.startswith("hf://"):
        return None
    return hub_info(config, config.model.revision).sha


def _scratch(config: RunConfig, key: str) -> Path:
    folder = Path(config.scratch) / "models" / hashlib.sha256(key.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class _Part:
    info: ObjectInfo
    start: int
    end: int


def _parts(infos: Iterable[ObjectInfo]) -> Iterator[_Part]:
    for info in infos:
        for start in range(0, info.size, PART):
            yield _Part(info, start, min(start + PART, info.size))


def _download(source: Location, infos: list[ObjectInfo], folder: Path) -> None:
    """Write the objects, each under its name only once it is whole; what is there with the same tag stays."""
    record = folder / ".fetched.json"
    have: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    needed = [i for i in infos if have.get(i.key) != i.etag or not (folder / i.key).exists()]
    for info in needed:
        with open(folder / f"{info.key}.part", "wb") as file:
            file.truncate(info.size)

    def bring(part: _Part) -> None:
        data = source.get(part.info.key, start=part.start, end=part.end, if_match=part.info.etag)
        with open(folder / f"{part.info.key}.part", "r+b") as file:
            os.pwrite(file.fileno(), data, part.start)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(bring, _parts(needed)):
            pass
    for info in needed:
        os.replace(folder / f"{info.key}.part", folder / info.key)
    if needed:
        record.write_text(json.dumps(have | {i.key: i.etag for i in infos}))
