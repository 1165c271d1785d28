"""Data sets on the Hugging Face hub, as a store like any other: files of a split by ranges, at a pinned commit.

The datasets library says which files a split has (hub_splits). The files are then read by the same code as
everything else, so order and resume are the same. Nothing of a repository is ever run, and nothing is downloaded whole.
The token comes from HF_TOKEN.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from finetune_api.exits import JobError, Reason
from finetune_api.run import HubAccess
from finetune_trainer.storage import ObjectInfo, Read, Unfinished

_RANGE = 8 << 20
_TIMEOUT_SECONDS = 30.0
_RETRIED = (408, 429, 500, 502, 503, 504)


class HubStore:
    """One data set at one commit; keys are its files. Read-only."""

    conditional_writes = False

    def __init__(self, uri: str, revision: str | None, access: HubAccess, *, granted: bool = False) -> None:
        """`granted`: the prepare step has read this commit, so that a refusal means that the token has lapsed."""
        self.repository, self.revision, self._access, self._granted = repository(uri), revision, access, granted

    def uri(self, key: str) -> str:
        """hf://organisation/name/file."""
        return f"hf://{self.repository}/{key}"

    def name(self, key: str) -> str:
        """The file within its repository."""
        return key

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
        with hub_errors(self.repository, self.revision, granted=self._granted):
            answer = http_backoff("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, retry_on_status_codes=_RETRIED)
            if answer.status_code == 416:
                return b""
            hf_raise_for_status(answer)
        data: bytes = answer.content
        return data if answer.status_code == 206 or "Range" not in headers else data[start or 0 : end]

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """A forward reader that asks for one range after the other."""
        return io.BufferedReader(_Ranges(self, key), 1 << 20)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Never: the hub is an input."""
        raise AssertionError("the hub is read-only")

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Never: the hub is an input."""
        raise AssertionError("the hub is read-only")

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """None: the hub is an input."""
        return iter(())

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        """Never: the hub is an input."""
        raise AssertionError("the hub is read-only")

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
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


@contextmanager
def hub_errors(name: str, revision: str | None, *, granted: bool = False) -> Iterator[None]:
    """Map the hub client's errors to the contract's reasons. `granted`: this very commit was read before."""
    from huggingface_hub import errors as hub

    try:
        yield
    except JobError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if granted and status in (401, 403):
            raise JobError(
                Reason.CREDENTIALS_EXPIRED,
                f"the hub no longer lets this token read data set {name} (HTTP {status}), which it did before",
                hint="Renew the token in the Secret of spec.hub.tokenSecret: each attempt reads it anew.",
            ) from None
        if isinstance(error, hub.GatedRepoError) or (
            status in (401, 403) and not isinstance(error, hub.RepositoryNotFoundError)
        ):
            raise JobError(
                Reason.ACCESS_DENIED,
                f"the hub refuses access to data set {name} (HTTP {status}): it is private or gated",
                hint="Name a Secret with HF_TOKEN in spec.hub.tokenSecret, and accept the data set's terms on the hub.",
            ) from None
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
                Reason.DATA_NOT_FOUND,
                f"the hub has no data set {name} that this token may see",
                hint="Check the name; private sets need a Secret with HF_TOKEN in spec.hub.tokenSecret.",
            ) from None
        raise JobError(
            Reason.STORAGE_UNAVAILABLE,
            f"the hub cannot be reached for data set {name} ({type(error).__name__})",
            hint="Check spec.hub.endpoint and the network policy.",
        ) from None
