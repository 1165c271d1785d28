"""Writes with a condition, whose winner always knows that it has won (I5 stands on this).

Every write carries a writer's mark in its metadata. Where an answer was lost, the mark on the object decides who wrote.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from finetune_trainer.storage.s3.bucket import Bucket
from finetune_trainer.storage.s3.errors import code_and_status

log = logging.getLogger(__name__)

Send = Callable[[dict[str, str], dict[str, str]], str]
"""send(condition, mark) makes the request that writes, and returns the object's tag."""
WRITER = "finetune-writer"


def new_mark() -> dict[str, str]:
    """Metadata that no other write has."""
    return {WRITER: uuid.uuid4().hex}


class ConditionalWrites:
    """The writes of one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._supported: bool | None = None

    @property
    def supported(self) -> bool:
        """What the probe before the first conditional write found; True until then."""
        return self._supported is not False

    def write(self, key: str, send: Send, mark: dict[str, str], *, if_none_match: bool, if_match: str | None) -> str:
        """Write; where the answer is doubtful find out who did. Returns the tag; raises FileExistsError."""
        from botocore.exceptions import ClientError

        if if_none_match and not self._is_supported(key):
            return self._checked_write(key, send, mark)
        condition = {"IfNoneMatch": "*"} if if_none_match else {}
        if if_match is not None:
            found = self._bucket.head(key)  # asked by us as well: not every store heeds If-Match in every kind of write
            if found is None or found.etag != if_match:
                raise FileExistsError(self._bucket.uri(key))
            condition = {"IfMatch": f'"{if_match}"'}
        doubtful = False

        def doubt() -> None:
            nonlocal doubtful
            doubtful = True

        def request() -> str:
            try:
                return send(condition, mark)
            except ClientError as error:
                code, status = code_and_status(error)
                if "IfMatch" in condition and (status == 501 or code == "NotImplemented"):
                    condition.clear()  # then our own look must do, with a race of milliseconds
                    return request()
                refused = status == 412 or code == "PreconditionFailed"
                lost = bool(condition) and (refused or ("IfMatch" in condition and code in ("NoSuchKey", "404")))
                if not lost and not (doubtful and code == "NoSuchUpload"):
                    raise
                mine = self._tag_if_mine(key, mark) if doubtful else None
                if mine is not None:
                    return mine
                if lost:
                    raise FileExistsError(self._bucket.uri(key)) from None
                raise

        return self._bucket.call("write", key, request, retried=doubt)

    def _tag_if_mine(self, key: str, mark: dict[str, str]) -> str | None:
        answer = self._bucket.client.head_object(Bucket=self._bucket.name, Key=key)
        found = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return str(answer["ETag"]).strip('"') if found.get(WRITER) == mark[WRITER] else None

    def _checked_write(self, key: str, send: Send, mark: dict[str, str]) -> str:
        """Where the server knows no conditions: look, write, look again. A racer slower than the pause wins as well."""
        if self._bucket.head(key) is not None:
            raise FileExistsError(self._bucket.uri(key))
        self._bucket.call("write", key, lambda: send({}, mark))
        time.sleep(0.5)
        tag = self._bucket.call("read", key, lambda: self._tag_if_mine(key, mark))
        if tag is None:
            raise FileExistsError(self._bucket.uri(key))
        return tag

    def _is_supported(self, key: str) -> bool:
        """Whether the server honours If-None-Match: a second write of a new key must be refused. Asked once."""
        if self._supported is None:
            from botocore.exceptions import ClientError

            probe = f"{key}.probe-{uuid.uuid4().hex[:12]}"

            def refuses_a_second() -> bool:
                try:
                    self._bucket.client.put_object(Bucket=self._bucket.name, Key=probe, Body=b"", IfNoneMatch="*")
                    self._bucket.client.put_object(Bucket=self._bucket.name, Key=probe, Body=b"", IfNoneMatch="*")
                except ClientError as error:
                    code, status = code_and_status(error)
                    if status == 412 or code == "PreconditionFailed":
                        return True
                    if status == 501 or code in ("NotImplemented", "InvalidArgument", "InvalidRequest"):
                        return False
                    raise
                return False

            found = self._bucket.call("write", probe, refuses_a_second)
            self._bucket.delete([probe])
            if not found:
                log.warning(
                    "the storage at %s has no conditional writes: two writers at once are told apart by a check only",
                    self._bucket.endpoint,
                )
            self._supported = found
        return self._supported
