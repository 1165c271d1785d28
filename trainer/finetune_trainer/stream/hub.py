"""Data sets on the Hugging Face hub, as a store like any other: files of a split by ranges, at a pinned commit.

One API call lists a data set; its card's `configs`, else the names of folders and files, say which files a split has, by the
rules that the datasets library documents. The files are then read by the same code as everything else, so order and resume
are the same. Nothing of a repository is ever run, and nothing is downloaded whole. The token comes from HF_TOKEN.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from finetune_api.exits import JobError, Reason
from finetune_api.run import HubAccess, RunConfig
from finetune_trainer.storage import ObjectInfo
from finetune_trainer.stream.formats import Format, format_of
from finetune_trainer.stream.globs import matcher
from finetune_trainer.stream.source import Listing, field_of

_RANGE = 8 << 20
_TIMEOUT_SECONDS = 30.0
_RETRIED = (408, 429, 500, 502, 503, 504)
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json"}


class HubStore:
    """One data set at one commit; keys are its files. Read-only."""

    conditional_writes = False

    def __init__(self, uri: str, revision: str | None, access: HubAccess) -> None:
        self.repository, self.revision, self._access = repository(uri), revision, access

    def uri(self, key: str) -> str:
        """hf://organisation/name/file."""
        return f"hf://{self.repository}/{key}"

    def info(self) -> Any:
        """The hub's description: commit, files with sizes, card."""
        from huggingface_hub import HfApi

        with hub_errors(self.repository, self.revision):
            return HfApi(endpoint=self._access.endpoint).dataset_info(
                self.repository, revision=self.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
            )

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Files whose name begins with `prefix`, sorted."""
        yield from (found for found in files_of(self.info()) if found.key.startswith(prefix))

    def head(self, key: str) -> ObjectInfo | None:
        """Facts of one file."""
        return next((found for found in self.list(key) if found.key == key), None)

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """Bytes [start, end). A commit does not change, so the tag needs no check."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        if start is not None and end is not None and end <= start:
            return b""
        url = hf_hub_url(
            self.repository, key, repo_type="dataset", revision=self.revision, endpoint=self._access.endpoint
        )
        headers = build_hf_headers()
        if start is not None or end is not None:
            headers["Range"] = f"bytes={start or 0}-{'' if end is None else end - 1}"
        with hub_errors(self.repository, self.revision):
            answer = http_backoff("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, retry_on_status_codes=_RETRIED)
            if answer.status_code == 416:
                return b""
            hf_raise_for_status(answer)
        data: bytes = answer.content
        return data if answer.status_code == 206 or "Range" not in headers else data[start or 0 : end]

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """A forward reader that asks for one range after the other."""
        return io.BufferedReader(_Ranges(self, key), 1 << 20)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False) -> ObjectInfo:
        """Never: the hub is an input."""
        raise AssertionError("the hub is read-only")

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False) -> ObjectInfo:
        """Never: the hub is an input."""
        raise AssertionError("the hub is read-only")

    def delete(self, keys: Iterable[str]) -> None:
        """Never: the hub is an input."""
        raise AssertionError("the hub is read-only")


class _Ranges(io.RawIOBase):
    def __init__(self, store: HubStore, key: str) -> None:
        self._store, self._key, self._position = store, key, 0
        self._ready = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._ready and not self._ended:
            data = self._store.get(self._key, start=self._position, end=self._position + _RANGE)
            self._position += len(data)
            self._ended = len(data) < _RANGE
            self._ready = memoryview(data)
        view = memoryview(buffer).cast("B")
        taken = min(len(view), len(self._ready))
        view[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken


def repository(uri: str) -> str:
    """organisation/name of an hf:// URI."""
    return uri.removeprefix("hf://").removeprefix("datasets/").strip("/")


def files_of(info: Any) -> list[ObjectInfo]:
    """All files of a data set, sorted; the tag is the content's digest."""
    found = []
    for item in info.siblings or ():
        lfs = item.lfs
        tag = (lfs["sha256"] if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) or item.blob_id or info.sha
        found.append(ObjectInfo(item.rfilename, item.size or 0, str(tag)))
    return sorted(found, key=lambda info: info.key)


def list_hub(config: RunConfig, role: str, uri: str, revision: str | None, split: str) -> Listing:
    """The files of a split, at the commit that the revision means now. Raises JobError."""
    store = HubStore(uri, revision, config.hub)
    try:
        info = store.info()
    except JobError as error:
        error.field = error.field or field_of(role)
        raise
    files = [
        (found, kind) for found in files_of(info) if (kind := _data_format(found.key, config.data.format)) is not None
    ]
    names = [found.key for found, _ in files]
    chosen = set(_split_files(_configs(info), names, split, uri, role))
    objects = tuple((found, kind) for found, kind in files if found.key in chosen)
    if not objects:
        raise _no_split(uri, split, names, role)
    pinned = HubStore(uri, info.sha, config.hub)
    return Listing(role, uri, pinned, objects, info.sha)


def _data_format(key: str, wanted: str) -> Format | None:
    name = key.rpartition("/")[2]
    return (
        None if name in _NO_DATA or name.startswith((".", "_")) else format_of(key, "auto") and format_of(key, wanted)
    )


def _configs(info: Any) -> list[dict[str, Any]]:
    card = info.card_data
    configs = card.get("configs") if card is not None else None
    return [c for c in configs if isinstance(c, dict) and c.get("data_files")] if isinstance(configs, list) else []


def _split_files(configs: list[dict[str, Any]], names: list[str], split: str, uri: str, role: str) -> list[str]:
    """Names of the split's files. `split` may name the configuration, too: configuration/split."""
    wanted_config, _, wanted = split.rpartition("/")
    if not configs:
        return _by_name(names, wanted)
    by_name = {str(c.get("config_name", "default")): c for c in configs}
    if wanted_config or len(configs) == 1:
        config = by_name.get(wanted_config) if wanted_config else configs[0]
    else:
        config = next((c for c in configs if c.get("default")), by_name.get("default"))
    if config is None:
        raise JobError(
            Reason.DATA_NOT_FOUND, f"{uri} has several configurations ({', '.join(list(by_name)[:10])}), and split {split!r} does not say which",
            field=f"spec.data.{role}.split", hint=f"Write it as configuration/split, as {next(iter(by_name))}/{wanted}.",
        )  # fmt: skip
    patterns = _patterns(config["data_files"]).get(wanted, [])
    folder = str(config.get("data_dir") or "").strip("./")
    expressions = [matcher(f"{folder}/{p.removeprefix('./')}" if folder else p.removeprefix("./")) for p in patterns]
    return [name for name in names if any(e.match(name) for e in expressions)]


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """split -> patterns, from the forms that a card may have: a text, a list of texts, or of {split, path}."""
    if isinstance(data_files, str):
        return {"train": [data_files]}
    if isinstance(data_files, dict):
        return {str(split): [path] if isinstance(path, str) else list(path) for split, path in data_files.items()}
    found: dict[str, list[str]] = {}
    for item in data_files:
        split, path = (item.get("split", "train"), item.get("path", ())) if isinstance(item, dict) else ("train", item)
        found.setdefault(str(split), []).extend([path] if isinstance(path, str) else path)
    return found


def _by_name(names: list[str], split: str) -> list[str]:
    """Files whose name is sharded for the split, or names it in a folder, or in the file's own name; all, if no name names any split."""
    sharded = re.compile(rf"data/{re.escape(split)}-\d{{5}}-of-\d{{5}}.*\..*\Z")
    if any(re.match(r"data/\w[\w.]*-\d{5}-of-\d{5}.*\..*\Z", name) for name in names):
        return [name for name in names if sharded.match(name)]
    for of in (lambda name: name.rpartition("/")[0], lambda name: name.rpartition("/")[2]):
        if any(_names(of(name), words) for name in names for words in _KEYWORDS.values()):
            return [name for name in names if _names(of(name), _KEYWORDS.get(split, (split,)))]
    return names if split == "train" else []


def _names(text: str, words: Iterable[str]) -> bool:
    return any(re.search(rf"(?:^|[-._ /0-9]){re.escape(word)}(?:[-._ /0-9]|\Z)", text) for word in words)


def _no_split(uri: str, split: str, names: list[str], role: str) -> JobError:
    seen = (
        f"; its data files are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        if names
        else "; it has no jsonl, csv or parquet files"
    )
    return JobError(
        Reason.DATA_NOT_FOUND, f"{uri} has no files for split {split!r}{seen}", field=f"spec.data.{role}.split",
        hint="Name a split that the data set has; for sets with a loading script try revision refs/convert/parquet.",
    )  # fmt: skip


@contextmanager
def hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Map the hub client's errors to the contract's reasons."""
    from huggingface_hub import errors as hub

    try:
        yield
    except JobError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, hub.GatedRepoError) or (
            status in (401, 403) and not isinstance(error, hub.RepositoryNotFoundError)
        ):
            raise JobError(
                Reason.ACCESS_DENIED, f"the hub refuses access to data set {name} (HTTP {status}): it is private or gated",
                hint="Name a Secret with HF_TOKEN in spec.hub.tokenSecret, and accept the data set's terms on the hub.",
            ) from None  # fmt: skip
        if isinstance(error, hub.RevisionNotFoundError):
            raise JobError(
                Reason.DATA_NOT_FOUND,
                f"data set {name} has no revision {revision!r}",
                hint="Name a branch, tag or commit that it has.",
            ) from None
        if (
            isinstance(error, hub.RepositoryNotFoundError | hub.EntryNotFoundError | hub.HFValidationError)
            or status == 404
        ):
            raise JobError(
                Reason.DATA_NOT_FOUND, f"the hub has no data set {name} that this token may see",
                hint="Check the name; private sets need a Secret with HF_TOKEN in spec.hub.tokenSecret.",
            ) from None  # fmt: skip
        raise JobError(
            Reason.STORAGE_UNAVAILABLE,
            f"the hub cannot be reached for data set {name} ({type(error).__name__})",
            hint="Check spec.hub.endpoint and the network policy.",
        ) from None
