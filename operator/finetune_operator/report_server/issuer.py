"""The report server's own certificate: made by the operator into a Secret that its chart leaves empty, and renewed in
time.

A chart that made it would make another at each rendering without a cluster, and every sync would cut the trainers off.
The Secret holds the CA's key too: the certificate is renewed under the same CA, which trainers trust already. Only that
one Secret may be read, in the operator's own namespace.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Conflict
from finetune_operator.kube.kinds import SECRET
from finetune_operator.report_server.pki import CA_CERT, CA_KEY, CERT, FILES, KEY, good, issue

log = logging.getLogger(__name__)

Files = dict[str, bytes]
RETRY_SECONDS, LOOK_SECONDS = 2.0, 3600.0


class Issuer:
    """Keeps `folder` filled from the Secret; `hosts` are the names that trainers call, `days` how long a new CA is
    good.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        hosts: Sequence[str],
        folder: Path,
        *,
        days: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._namespace, self._name = client, namespace, name
        self._hosts, self._folder, self._days, self._clock = tuple(hosts), folder, days, clock

    async def first(self) -> None:
        """Return once there is a certificate; an API server that is away is waited for."""
        while True:
            try:
                await self.step()
                return
            except ApiError as error:
                log.warning("No certificate yet, Secret %s/%s: %s", self._namespace, self._name, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def follow(self) -> None:
        """Renew it in time, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.step()
            except ApiError as error:
                log.warning("Secret %s/%s cannot be looked at: %s", self._namespace, self._name, error)

    async def step(self) -> None:
        """Take the certificate from the Secret, or make one and put it there. Raises ApiError."""
        while True:
            secret = await self._client.get(SECRET, self._namespace, self._name)
            files = _decoded(secret.get("data") or {})
            if good(files, self._hosts, self._clock()):
                break
            files = issue(files, self._hosts, self._clock(), self._days)
            data = {name: base64.b64encode(content).decode() for name, content in files.items()}
            try:
                await self._client.replace(
                    SECRET, self._namespace, self._name, secret | {"data": data}, seconds=10.0, fenced=False
                )
            except Conflict:
                continue  # somebody else has just made one
            log.info("A certificate for the report server was made, in Secret %s/%s", self._namespace, self._name)
            break
        self._write(files)

    def _write(self, files: Files) -> None:
        """Only what the server needs, and only where it differs; the CA's key stays in the Secret."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (KEY, CERT, CA_CERT):
            path = self._folder / name
            if path.exists() and path.read_bytes() == files[name]:
                continue
            new = path.with_suffix(".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(files[name])
            new.replace(path)


def _decoded(data: dict[str, str]) -> Files:
    files: Files = {}
    for name in (*FILES, CA_KEY):
        try:
            files[name] = base64.b64decode(data.get(name) or "", validate=True)
        except (binascii.Error, ValueError):
            files[name] = b""
    return files
