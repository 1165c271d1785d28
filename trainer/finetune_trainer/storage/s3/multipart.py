"""Large objects on S3, written in parts: only a few are in memory at once, and the last request makes the whole
visible.

A writer that is killed leaves an upload that never ends: invisible, and paid for. `unfinished` finds those.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from finetune_trainer.storage.base import ObjectInfo, Read, Unfinished
from finetune_trainer.storage.s3.bucket import Bucket
from finetune_trainer.storage.s3.conditional import ConditionalWrites, new_mark
from finetune_trainer.storage.s3.errors import code_and_status

log = logging.getLogger(__name__)

PART_BYTES = 16 << 20
PARALLEL = 4
"""So many parts are read and sent at once: 64 MiB for objects of up to 140 GiB, whose parts are larger."""
MOST_PARTS = 9_000  # S3 allows 10,000


def write(
    bucket: Bucket,
    writes: ConditionalWrites,
    key: str,
    size: int,
    read: Read,
    *,
    if_none_match: bool,
    if_match: str | None,
) -> ObjectInfo:
    """A multipart upload of `read`'s bytes [0, size); aborted where it fails."""
    part = max(PART_BYTES, -(-size // MOST_PARTS))
    mark = new_mark()
    at = {"Bucket": bucket.name, "Key": key}
    upload = bucket.call("write", key, lambda: bucket.client.create_multipart_upload(**at, Metadata=mark))["UploadId"]

    def send(start: int) -> dict[str, Any]:
        data, number = read(start, min(start + part, size)), start // part + 1
        ids = at | {"UploadId": upload, "PartNumber": number}
        answer = bucket.call("write", key, lambda: bucket.client.upload_part(**ids, Body=data))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    try:
        with ThreadPoolExecutor(PARALLEL) as pool:
            parts = list(pool.map(send, range(0, size, part)))

        def complete(condition: dict[str, str], _: dict[str, str]) -> str:
            whole = at | {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            return str(bucket.client.complete_multipart_upload(**whole, **condition)["ETag"]).strip('"')

        tag = writes.write(key, complete, mark, if_none_match=if_none_match, if_match=if_match)
        return ObjectInfo(key, size, tag)
    except BaseException:
        _abort(bucket, Unfinished(key, upload))  # the first error is the one to tell
        raise


def unfinished(bucket: Bucket, prefix: str) -> Iterator[Unfinished]:
    """Uploads below the prefix that have not ended; none where the server does not tell or we may not ask."""
    more: dict[str, str] = {}
    while True:
        try:
            answer = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=prefix, **more)
        except Exception as error:
            log.info("uploads that were left below %s cannot be listed (%s)", bucket.uri(prefix), _short(error))
            return
        for item in answer.get("Uploads", ()):
            if item["Key"].startswith(prefix):
                yield Unfinished(item["Key"], item["UploadId"])
        if not answer.get("IsTruncated") or not answer.get("NextKeyMarker"):
            return
        more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}


def discard(bucket: Bucket, uploads: Iterable[Unfinished]) -> None:
    """Abort the uploads; what cannot be aborted now may be later."""
    for upload in uploads:
        _abort(bucket, upload)


def _abort(bucket: Bucket, upload: Unfinished) -> None:
    try:
        bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=upload.key, UploadId=upload.upload)
    except Exception as error:
        log.info("could not abort the upload of %s (%s)", bucket.uri(upload.key), _short(error))


def _short(error: Exception) -> str:
    return code_and_status(error)[0] if hasattr(error, "response") else type(error).__name__
