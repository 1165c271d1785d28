"""Files that rows stand for: a row holds where one lies and its tag, or its bytes; here it becomes bytes.

Rows travel as JSON, so bytes of parquet are written in base64 (a third more of them, about 1 ms for each MiB both ways:
little beside decoding an image). Files elsewhere are fetched when a row is encoded, and a tag that differs means that
the data changed under the run: DataChanged.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.storage import ObjectStore, open_store
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.sources.source import sources_of

PLACE, TAG, BASE64 = "uri", "tag", "base64"
"""Fields of a row's value: where its file lies, the tag it had; its bytes as text."""


_HEAD, _LEAST = 200, 64
"""Characters of a data: URI before its comma, at most; of bare base64, at least."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")


def reference(uri: str, tag: str) -> dict[str, str]:
    """A file elsewhere, as rows hold it."""
    return {PLACE: uri, TAG: tag}


def as_text(data: bytes) -> dict[str, str]:
    """Bytes, as rows hold them."""
    return {BASE64: base64.b64encode(data).decode("ascii")}


class BrokenBase64(ValueError):
    """What is wrong with a text that should be a file's bytes."""


def bytes_in(text: str) -> bytes | None:
    """The bytes that a text holds in base64, with data:…;base64, before it or bare; None where it is neither, but a
    path. A bare one is long and has no full stop, which the name of a file has. Raises BrokenBase64.
    """
    head, comma, body = text[:_HEAD].partition(",")
    if head[:5].lower() == "data:":
        if not comma or not head.lower().endswith(";base64"):
            raise BrokenBase64("holds a data: URI that is not in base64; write data:image/png;base64,… or a path")
        body = text[len(head) + 1 :]
    elif len(text) < _LEAST or not _BASE64.fullmatch(text):
        return None
    else:
        body = text
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BrokenBase64(f"holds broken base64 ({error}); write the file's bytes anew, or its path") from None


def held_bytes(value: Any) -> bytes | None:
    """The bytes that a row's value holds itself: as they are, as {bytes, path} (datasets), or as text; else None."""
    if isinstance(value, str):
        with suppress(BrokenBase64):
            return bytes_in(value)
    while isinstance(value, Mapping):
        if isinstance(text := value.get(BASE64), str):
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                return None
        value = value.get("bytes")
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


class Files:
    """Reads the files that a job's rows stand for; may be asked from several threads."""

    def __init__(self, config: RunConfig, revisions: Mapping[str, str | None]) -> None:
        """`revisions`: the commit of each hf:// source, by its role."""
        self._config, self._revisions = config, revisions
        self._stores: dict[str, ObjectStore] = {}

    @classmethod
    def of(cls, config: RunConfig, manifest: DataManifest) -> Files:
        """Those of a prepared job."""
        return cls(config, {role: source.revision for role, source in manifest.sources.items()})

    def content(self, value: Any) -> bytes:
        """The bytes behind a row's value. Raises JobError: DataChanged, and what storage raises."""
        data = held_bytes(value)
        if data is not None:
            return data
        uri, tag = value[PLACE], value[TAG]
        store, key = self.place(uri)
        try:
            return store.get(key, if_match=tag)
        except FileNotFoundError:
            raise JobError(Reason.DATA_CHANGED, f"{uri} was deleted after it was listed") from None

    def place(self, uri: str) -> tuple[ObjectStore, str]:
        """The store of a file, and its key."""
        if uri.startswith("hf://"):
            for role in sources_of(self._config):
                store = self._hub(role)
                if store is not None and uri.startswith(store.uri("")):
                    return store, uri.removeprefix(store.uri(""))
        root = "/".join(uri.split("/", 3)[:3])
        patience = 0.75 * self._config.world.timeout_seconds
        if root not in self._stores:
            self._stores[root] = open_store(uri, self._config.storage, patience=patience)[0]
        return self._stores[root], open_store(uri, self._config.storage)[1]

    def _hub(self, role: str) -> ObjectStore | None:
        _, source = sources_of(self._config)[role]
        if role not in self._revisions or source.uri is None or not source.uri.startswith("hf://"):
            return None
        if role not in self._stores:
            from finetune_trainer.stream.sources.hub_store import HubStore

            revision = self._revisions[role]
            self._stores[role] = HubStore(
                source.uri, revision or source.revision, self._config.hub, granted=revision is not None
            )
        return self._stores[role]
