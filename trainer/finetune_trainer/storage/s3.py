"""S3 and what speaks like it: ranged, resumed reads; conditional writes whose winner always knows it has won.

We retry ourselves (botocore does not): only so is it known that a 412 may be the echo of our own earlier, unanswered
write. Every write carries a writer's mark in its metadata, and the mark decides. Checksum trailers are off
("when_required"): some stores put them into the object.
"""

from __future__ import annotations

import io
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from finetune_api.exits import JobError, Reason
from finetune_api.run import StorageAccess
from finetune_trainer.storage.base import ObjectInfo
from finetune_trainer.storage.errors import changed, code_and_status, from_boto, is_transient

log = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 5, 20
PART_BYTES = 16 << 20
WRITER = "finetune-writer"
T = TypeVar("T")


class S3Store:
    """One bucket. Safe to use from several threads."""

    def __init__(self, bucket: str, access: StorageAccess, *, patience: float) -> None:
        self.bucket, self.access, self.patience = bucket, access, patience
        self.endpoint = access.endpoint or f"AWS S3 ({access.region or 'us-east-1'})"
        self._lock = threading.Lock()
        self._made: Any = None
        self._conditional: bool | None = None
        self._listed = False  # the bucket is there and may be listed

    @property
    def conditional_writes(self) -> bool:
        """What the probe before the first conditional write found; True until then."""
        return self._conditional is not False

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return f"s3://{self.bucket}/{key}"

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = client_for(self.access)
            return self._made

    def _call(self, verb: str, key: str, request: Callable[[], T], *, retried: Callable[[], None] = lambda: None) -> T:
        """Run one request, with retries while the fault may pass; `retried` is told before each further try."""
        began, tries = time.monotonic(), 0
        while True:
            try:
                return request()
            except (JobError, FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                tries += 1
                pause = random.uniform(0.1, min(5.0, 0.2 * 2**tries))  # full jitter
                if not is_transient(error) or time.monotonic() + pause - began > self.patience:
                    raise from_boto(
                        error, uri=self.uri(key), bucket=self.bucket, endpoint=self.endpoint, verb=verb
                    ) from None
                log.info("retrying to %s %s (%s)", verb, self.uri(key), type(error).__name__)
                retried()
                time.sleep(pause)

    # ------------------------------------------------------------------ reading

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects by ListObjectsV2, page by page; S3 sorts by UTF-8 bytes, and so do we."""
        token: str | None = None
        while True:
            more = {"ContinuationToken": token} if token else {}

            def page(more: dict[str, str] = more) -> dict[str, Any]:
                return cast(dict[str, Any], self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more))

            answer = self._call("list", prefix, page)
            self._listed = True
            for item in answer.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item["ETag"].strip('"'))
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return

    def head(self, key: str) -> ObjectInfo | None:
        """Facts of the object. A 404 to HEAD has no words (it may mean the bucket or the user), so the first one is looked into."""
        try:
            answer = self._call("read", key, lambda: self._client.head_object(Bucket=self.bucket, Key=key))
        except FileNotFoundError:
            if not self._listed:
                next(self.list(key), None)
            return None
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """Bytes [start, end); fewer only where the object ends."""
        if start is not None and end is not None and end <= start:
            return b""
        with _Reader(self, key, start or 0, end, if_match) as reader:
            return reader.read()

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """A forward reader of the whole object."""
        return io.BufferedReader(_Reader(self, key, 0, None, if_match), 1 << 20)

    # ------------------------------------------------------------------ writing

    def put(self, key: str, data: bytes, *, if_none_match: bool = False) -> ObjectInfo:
        """One PUT."""

        def write(condition: dict[str, str], mark: dict[str, str]) -> str:
            answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata=mark, **condition)
            return str(answer["ETag"]).strip('"')

        return ObjectInfo(key, len(data), self._written(key, write, if_none_match))

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False) -> ObjectInfo:
        """One PUT, or a multipart upload whose completion makes it visible."""
        size = Path(path).stat().st_size
        if size <= 2 * PART_BYTES:
            return self.put(key, Path(path).read_bytes(), if_none_match=if_none_match)
        part = max(PART_BYTES, -(-size // 9_000))  # at most 10,000 parts are allowed
        mark = {WRITER: uuid.uuid4().hex}
        upload = self._call(
            "write", key, lambda: self._client.create_multipart_upload(Bucket=self.bucket, Key=key, Metadata=mark)
        )["UploadId"]

        def send(number: int) -> dict[str, Any]:
            with open(path, "rb") as source:
                source.seek((number - 1) * part)
                data = source.read(part)
            ids = {"Bucket": self.bucket, "Key": key, "UploadId": upload, "PartNumber": number}
            return {
                "PartNumber": number,
                "ETag": self._call("write", key, lambda: self._client.upload_part(**ids, Body=data))["ETag"],
            }

        try:
            with ThreadPoolExecutor(4) as pool:
                parts = list(pool.map(send, range(1, -(-size // part) + 1)))

            def complete(condition: dict[str, str], _: dict[str, str]) -> str:
                ids = {"Bucket": self.bucket, "Key": key, "UploadId": upload, "MultipartUpload": {"Parts": parts}}
                return str(self._client.complete_multipart_upload(**ids, **condition)["ETag"]).strip('"')

            return ObjectInfo(key, size, self._written(key, complete, if_none_match, mark=mark))
        except BaseException:
            try:
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            except Exception as error:  # the first error is the one to tell
                log.info("could not abort the upload of %s (%s)", self.uri(key), type(error).__name__)
            raise

    def _written(
        self,
        key: str,
        write: Callable[[dict[str, str], dict[str, str]], str],
        if_none_match: bool,
        mark: dict[str, str] | None = None,
    ) -> str:
        """Write; where the answer is doubtful find out who did. Returns the tag; raises FileExistsError."""
        from botocore.exceptions import ClientError

        mark = mark or {WRITER: uuid.uuid4().hex}
        if if_none_match and not self._probe_conditional(key):
            return self._checked_write(key, write, mark)
        condition = {"IfNoneMatch": "*"} if if_none_match else {}
        doubtful = False

        def doubt() -> None:
            nonlocal doubtful
            doubtful = True

        def request() -> str:
            try:
                return write(condition, mark)
            except ClientError as error:
                code, status = code_and_status(error)
                lost = if_none_match and (status == 412 or code == "PreconditionFailed")
                if not lost and not (doubtful and code == "NoSuchUpload"):
                    raise
                mine = self._tag_if_mine(key, mark) if doubtful else None
                if mine is not None:
                    return mine
                if lost:
                    raise FileExistsError(self.uri(key)) from None
                raise

        return self._call("write", key, request, retried=doubt)

    def _tag_if_mine(self, key: str, mark: dict[str, str]) -> str | None:
        answer = self._client.head_object(Bucket=self.bucket, Key=key)
        found = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return str(answer["ETag"]).strip('"') if found.get(WRITER) == mark[WRITER] else None

    def _checked_write(
        self, key: str, write: Callable[[dict[str, str], dict[str, str]], str], mark: dict[str, str]
    ) -> str:
        """Where the server knows no conditions: look, write, look again. A racer slower than the pause wins as well."""
        if self.head(key) is not None:
            raise FileExistsError(self.uri(key))
        self._call("write", key, lambda: write({}, mark))
        time.sleep(0.5)
        tag = self._call("read", key, lambda: self._tag_if_mine(key, mark))
        if tag is None:
            raise FileExistsError(self.uri(key))
        return tag

    def _probe_conditional(self, key: str) -> bool:
        """Whether the server honours If-None-Match: a second write of a new key must be refused. Asked once."""
        if self._conditional is None:
            from botocore.exceptions import ClientError

            probe = f"{key}.probe-{uuid.uuid4().hex[:12]}"

            def attempt() -> bool:
                try:
                    self._client.put_object(Bucket=self.bucket, Key=probe, Body=b"", IfNoneMatch="*")
                    self._client.put_object(Bucket=self.bucket, Key=probe, Body=b"", IfNoneMatch="*")
                except ClientError as error:
                    code, status = code_and_status(error)
                    if status == 412 or code == "PreconditionFailed":
                        return True
                    if status == 501 or code in ("NotImplemented", "InvalidArgument", "InvalidRequest"):
                        return False
                    raise
                return False

            found = self._call("write", probe, attempt)
            self.delete([probe])
            if not found:
                log.warning(
                    "the storage at %s has no conditional writes: two writers at once are told apart by a check only",
                    self.endpoint,
                )
            self._conditional = found
        return self._conditional

    def delete(self, keys: Iterable[str]) -> None:
        """One DELETE each: the bulk request needs checksums that stores disagree about."""

        def one(key: str) -> None:
            with suppress(FileNotFoundError):
                self._call("delete", key, lambda: self._client.delete_object(Bucket=self.bucket, Key=key))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, keys))


class _Reader(io.RawIOBase):
    """Bytes [position, end) of an object, resumed where a broken connection left off, of the same tag only."""

    def __init__(self, store: S3Store, key: str, start: int, end: int | None, tag: str | None) -> None:
        self._store, self._key, self._position, self._end, self._tag = store, key, start, end, tag
        self._body: Any = None
        self._done = False
        self._store._call("read", key, self._connect)

    def _connect(self) -> None:
        from botocore.exceptions import ClientError

        wanted: dict[str, str] = {"IfMatch": f'"{self._tag}"'} if self._tag else {}
        if self._position or self._end is not None:
            wanted["Range"] = f"bytes={self._position}-{'' if self._end is None else self._end - 1}"
        try:
            answer = self._store._client.get_object(Bucket=self._store.bucket, Key=self._key, **wanted)
        except ClientError as error:
            code, status = code_and_status(error)
            if status != 416 and code != "InvalidRange":
                raise
            self._done = True  # the range begins at or behind the object's end
            return
        tag = str(answer["ETag"]).strip('"')
        if self._tag is not None and tag != self._tag:  # a server that ignores If-Match
            raise changed(self._store.uri(self._key))
        self._tag = tag
        self._body = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")

        def step() -> bytes:
            if self._done:
                return b""
            if self._body is None:
                self._connect()
            return b"" if self._body is None else cast(bytes, self._body.read(len(view)))

        data = self._store._call("read", self._key, step, retried=self._drop)
        view[: len(data)] = data
        self._position += len(data)
        if not data:
            self._done = True
            self._drop()
        return len(data)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()


def client_for(access: StorageAccess) -> Any:
    """The process's client for this access and these credentials; making one takes a good part of a second."""
    environment = hash(tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))))
    key = (access.model_dump_json(), environment)
    with _clients_lock:
        if key not in _clients:
            _clients[key] = make_client(access)
        return _clients[key]


_clients: dict[tuple[str, int], Any] = {}
_clients_lock = threading.Lock()


def make_client(access: StorageAccess) -> Any:
    """A boto3 client: credentials from the environment or the default chain, no retries of its own."""
    import boto3
    from botocore.config import Config

    if access.ca_file is not None and not Path(access.ca_file).is_file():
        raise JobError(
            Reason.INVALID_CONFIG,
            f"the CA file {access.ca_file} does not exist",
            field="spec.storage.ca",
            hint="Check the key of the ConfigMap or Secret that spec.storage.ca names.",
        )
    path_style = access.path_style if access.path_style is not None else access.endpoint is not None
    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1},
        max_pool_connections=16, s3={"addressing_style": "path" if path_style else "auto"},
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
    )  # fmt: skip
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=access.endpoint,
            region_name=access.region or "us-east-1",
            verify=access.ca_file,
            config=config,
        )
    except Exception as error:
        raise from_boto(error, uri="storage", bucket="", endpoint=access.endpoint or "AWS", verb="reach") from None
