"""Large objects on S3, written in parts: only a few are in memory at once, and the last request makes the whole
visible.

A writer that is killed leaves an upload that never ends: invisible, and paid for. `unfinished` finds those.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from finetune_trainer.storage.base import ObjectInfo, Read, Unfinished
from finetune_trainer.storage.errors import code_and_status

if TYPE_CHECKING:
    from finetune_trainer.storage.s3.store import S3Store

log = logging.getLogger(__name__)

PART_BYTES = 16 << 20
PARALLEL = 4
"""So many parts are read and sent at once: 64 MiB for objects of up to 140 GiB, whose parts are larger."""
MOST_PARTS = 9_000  # S3 allows 10,000


def write(
    store: S3Store, key: str, size: int, read: Read, *, if_none_match: bool, if_match: str | None, writer: str
) -> ObjectInfo:
    """A multipart upload of `read`'s bytes [0, size); aborted where it fails."""
    part = max(PART_BYTES, -(-size // MOST_PARTS))
    mark = {writer: uuid.uuid4().hex}
    at = {"Bucket": store.bucket, "Key": key}
    upload = store.call("write", key, lambda: store.client.create_multipart_upload(**at, Metadata=mark))["UploadId"]

    def send(start: int) -> dict[str, Any]:
        data, number = read(start, min(start + part, size)), start // part + 1
        ids = at | {"UploadId": upload, "PartNumber": number}
        answer = store.call("write", key, lambda: store.client.upload_part(**ids, Body=data))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    try:
        with ThreadPoolExecutor(PARALLEL) as pool:
            parts = list(pool.map(send, range(0, size, part)))

        def complete(condition: dict[str, str], _: dict[str, str]) -> str:
            whole = at | {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            return str(store.client.complete_multipart_upload(**whole, **condition)["ETag"]).strip('"')

        return ObjectInfo(key, size, store.written(key, complete, if_none_match, if_match, mark=mark))
    except BaseException:
        _abort(store, Unfinished(key, upload))  # the first error is the one to tell
        raise


def unfinished(store: S3Store, prefix: str) -> Iterator[Unfinished]:
    """Uploads below the prefix that have not ended; none where the server does not tell or we may not ask."""
    more: dict[str, str] = {}
    while True:
        try:
            answer = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=prefix, **more)
        except Exception as error:
            log.info("uploads that were left below %s cannot be listed (%s)", store.uri(prefix), _short(error))
            return
        for item in answer.get("Uploads", ()):
            if item["Key"].startswith(prefix):
                yield Unfinished(item["Key"], item["UploadId"])
        if not answer.get("IsTruncated") or not answer.get("NextKeyMarker"):
            return
        more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}


def discard(store: S3Store, uploads: Iterable[Unfinished]) -> None:
    """Abort the uploads; what cannot be aborted now may be later."""
    for upload in uploads:
        _abort(store, upload)


def _abort(store: S3Store, upload: Unfinished) -> None:
    try:
        store.client.abort_multipart_upload(Bucket=store.bucket, Key=upload.key, UploadId=upload.upload)
    except Exception as error:
        log.info("could not abort the upload of %s (%s)", store.uri(upload.key), _short(error))


def _short(error: Exception) -> str:
    return code_and_status(error)[0] if hasattr(error, "response") else type(error).__name__
