"""One bucket: requests with retries of our own, what it lists and knows of an object, and deletion.

We retry ourselves (botocore does not): only so is it known that a 412 may be the echo of our own earlier, unanswered
write.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

from finetune_api.exits import JobError
from finetune_api.run import StorageAccess
from finetune_trainer.storage.base import ObjectInfo
from finetune_trainer.storage.s3 import credentials
from finetune_trainer.storage.s3.client import client_for
from finetune_trainer.storage.s3.errors import from_boto, is_transient

log = logging.getLogger(__name__)

T = TypeVar("T")


class Bucket:
    """Safe to use from several threads."""

    def __init__(self, name: str, access: StorageAccess, *, patience: float) -> None:
        self.name, self.access, self.patience = name, access, patience
        self.endpoint = access.endpoint or f"AWS S3 ({access.region or 'us-east-1'})"
        self._listed = False  # the bucket is there and may be listed

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return f"s3://{self.name}/{key}"

    @property
    def client(self) -> Any:
        """This process's client; ask for it at each request."""
        return client_for(self.access)

    def call(self, verb: str, key: str, request: Callable[[], T], *, retried: Callable[[], None] = lambda: None) -> T:
        """Run one request, with retries while the fault may pass; `retried` is called before each retry.

        Patience counts from the first failure: a large part on a slow line may take longer than that before it breaks.
        """
        since, tries = math.inf, 0
        refusals = credentials.Refusals(self.access)
        while True:
            try:
                return request()
            except (JobError, FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                tries, since = tries + 1, min(since, time.monotonic())
                lapsed = refusals.lapsed(error)
                pause = random.uniform(0.1, min(5.0, 0.2 * 2**tries))  # full jitter
                if not (lapsed or is_transient(error)) or time.monotonic() + pause - since > self.patience:
                    raise from_boto(
                        error, uri=self.uri(key), bucket=self.name, endpoint=self.endpoint, verb=verb, lapsed=lapsed
                    ) from None
                log.info("retrying to %s %s (%s)", verb, self.uri(key), type(error).__name__)
                retried()
                time.sleep(pause)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects by ListObjectsV2, page by page; S3 sorts by UTF-8 bytes, and so do we."""
        token: str | None = None
        while True:
            more = {"ContinuationToken": token} if token else {}

            def page(more: dict[str, str] = more) -> dict[str, Any]:
                return cast(dict[str, Any], self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, **more))

            answer = self.call("list", prefix, page)
            self._listed = True
            credentials.note(self.access, "list_objects_v2", Bucket=self.name, Prefix=prefix, MaxKeys=1)
            for item in answer.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item["ETag"].strip('"'))
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return

    def head(self, key: str) -> ObjectInfo | None:
        """Facts of the object.

        A 404 to HEAD has no words (it may mean the bucket or the user), so the first one is looked into.
        """
        try:
            answer = self.call("read", key, lambda: self.client.head_object(Bucket=self.name, Key=key))
        except FileNotFoundError:
            if not self._listed:
                next(self.list(key), None)
            return None
        credentials.note(self.access, "head_object", Bucket=self.name, Key=key)
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def delete(self, keys: Iterable[str]) -> None:
        """One DELETE each: the bulk request needs checksums that stores disagree about."""

        def one(key: str) -> None:
            with suppress(FileNotFoundError):
                self.call("delete", key, lambda: self.client.delete_object(Bucket=self.name, Key=key))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, keys))
