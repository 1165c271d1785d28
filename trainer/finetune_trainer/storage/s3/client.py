"""The process's boto3 clients: one for each endpoint and set of credentials.

They do not retry (`bucket` does), and send no checksum trailers: some stores put them into the object.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import StorageAccess
from finetune_trainer.storage.process_local import ProcessLocal
from finetune_trainer.storage.s3.errors import from_boto

CONNECT_SECONDS, READ_SECONDS = 5, 20


class _Clients:
    """The clients of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: dict[tuple[str, int], Any] = {}

    def close_idle(self) -> None:
        """Close the connections that no request is using; the clients stay good."""
        for client in list(self.made.values()):
            with contextlib.suppress(Exception):
                client.close()


_clients = ProcessLocal(_Clients, _Clients.close_idle)


def client_for(access: StorageAccess) -> Any:
    """The process's client for this access and these credentials; making one takes a good part of a second.

    Ask for it at each request: a client that is held would cross a fork.
    """
    clients, key = _clients(), key_of(access)
    with clients.lock:
        if key not in clients.made:
            clients.made[key] = make_client(access)
        return clients.made[key]


def renew_client(access: StorageAccess) -> None:
    """Let the next request have a client that reads its credentials anew: files, environment, web identity, instance
    profile.
    """
    clients, key = _clients(), key_of(access)
    fresh = make_client(access)
    with clients.lock:
        clients.made[key] = fresh


def key_of(access: StorageAccess) -> tuple[str, int]:
    """What a client is good for: an access, and the credentials that the environment names."""
    environment = hash(tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))))
    return access.model_dump_json(), environment


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
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},
        max_pool_connections=16,
        s3={"addressing_style": "path" if path_style else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
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
