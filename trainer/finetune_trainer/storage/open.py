"""From a URI to a store: s3://bucket/prefix and file:///folder. boto3 is imported only when needed."""

from __future__ import annotations

from urllib.parse import unquote

from finetune_api.exits import JobError, Reason
from finetune_api.run import StorageAccess
from finetune_trainer.storage.base import Location, ObjectStore
from finetune_trainer.storage.file import FileStore

PATIENCE_SECONDS = 30.0
"""How long transient faults of one request are retried: a user sees a dead endpoint within a minute."""


def open_store(uri: str, access: StorageAccess, *, patience: float | None = None) -> tuple[ObjectStore, str]:
    """The store of a URI and the key (or key prefix, or pattern) within it. Nothing is asked of the server yet.

    file:// paths are percent-decoded, s3:// keys are taken as they stand.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("s3", "file"):
        raise JobError(Reason.INVALID_CONFIG, f"{uri}: only s3:// and file:// are storage")
    if scheme == "file":
        if not rest.startswith("/"):
            raise JobError(
                Reason.INVALID_CONFIG,
                f"{uri}: a file URI has three slashes and a full path, as file:///data/train.jsonl",
            )
        return FileStore(), unquote(rest).lstrip("/")
    from finetune_trainer.storage.s3.store import S3Store

    bucket, _, key = rest.partition("/")
    return S3Store(bucket, access, patience=PATIENCE_SECONDS if patience is None else patience), key


def location(uri: str, access: StorageAccess, *, patience: float | None = None) -> Location:
    """The folder-like location that a URI names."""
    store, key = open_store(uri, access, patience=patience)
    key = key.rstrip("/")
    return Location(store, f"{key}/" if key else "")
