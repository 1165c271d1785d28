"""The S3 server that the jobs use: versitygw on the node's address, or as a pod in the cluster.

VERSITYGW with E2E_NODE_ADDRESS (an address of this machine that pods reach) runs the binary here. Otherwise a pod runs
E2E_S3_IMAGE (versitygw's own image when unset), and a port-forward lets the tests reach it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cluster import Cluster, env, wait

NAMESPACE = "finetune-e2e-s3"
# The secret key is the canary of test_observed: it must be found nowhere but in Secrets.
ACCESS_KEY, SECRET_KEY = "e2e-access-key", "canary-7f3a9c-secret-key"


@dataclasses.dataclass(frozen=True)
class Storage:
    """One S3 server under its two addresses: `inside` for pods, `outside` for the tests."""

    inside: str
    outside: str

    @property
    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            retries={"max_attempts": 5}, request_checksum_calculation="when_required", s3={"addressing_style": "path"}
        )
        return boto3.client(
            "s3",
            endpoint_url=self.outside,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=config,
        )

    def make_bucket(self, bucket: str) -> None:
        with contextlib.suppress(
            self.client.exceptions.BucketAlreadyOwnedByYou, self.client.exceptions.BucketAlreadyExists
        ):
            self.client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.client.upload_fileobj(io.BytesIO(body), bucket, key)

    def put_folder(self, bucket: str, prefix: str, folder: Path) -> None:
        client = self.client
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")

    def keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def download(self, bucket: str, prefix: str, folder: Path) -> Path:
        """All objects under the prefix, as files in `folder`."""
        client = self.client
        for key in self.keys(bucket, prefix + "/"):
            path = folder / key[len(prefix) + 1 :]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(path))
        return folder


def free_port(address: str) -> int:
    with socket.socket() as each:
        each.bind((address, 0))
        return each.getsockname()[1]


@contextlib.contextmanager
def on_this_machine(binary: str, address: str, folder: Path) -> Iterator[Storage]:
    """versitygw as a process here, on an address that pods reach."""
    port = free_port(address)
    data = folder / "objects"
    data.mkdir(parents=True)
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    with open(folder / "versitygw.log", "ab") as log:
        command = [binary, "--port", f"{address}:{port}", "--quiet", "posix", str(data)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            storage = Storage(f"http://{address}:{port}", f"http://{address}:{port}")
            _wait_until_served(storage)
            yield storage
        finally:
            process.terminate()
            process.wait(timeout=10)


@contextlib.contextmanager
def in_a_pod(cluster: Cluster, image: str) -> Iterator[Storage]:
    """versitygw as a pod with a Service, its objects in memory of the test run; reached from here by a port-forward."""
    labels = {"app": "s3"}
    container = {
        "name": "s3",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--port", ":7070", "posix", "/data"],
        "env": [{"name": "ROOT_ACCESS_KEY", "value": ACCESS_KEY}, {"name": "ROOT_SECRET_KEY", "value": SECRET_KEY}],
        "ports": [{"containerPort": 7070}],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "s3", "labels": labels},
            "spec": {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s3"},
            "spec": {"selector": labels, "ports": [{"port": 7070}]},
        },
        namespace=NAMESPACE,
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/s3", "-n", NAMESPACE, "--timeout=180s", timeout=200)
    port = free_port("127.0.0.1")
    forward = subprocess.Popen(
        ["kubectl", "port-forward", "-n", NAMESPACE, "service/s3", f"{port}:7070"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        storage = Storage(f"http://s3.{NAMESPACE}.svc:7070", f"http://127.0.0.1:{port}")
        _wait_until_served(storage)
        yield storage
    finally:
        forward.terminate()
        forward.wait(timeout=10)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s", check=False)


def _wait_until_served(storage: Storage) -> None:
    host, port = storage.outside.removeprefix("http://").split(":")

    def served() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        return False

    wait(f"S3 at {storage.outside}", served, 30, every=0.1)
    time.sleep(0.2)


@contextlib.contextmanager
def running_storage(cluster: Cluster, folder: Path) -> Iterator[Storage]:
    binary, address = env("VERSITYGW"), env("E2E_NODE_ADDRESS")
    if binary and address:
        with on_this_machine(binary, address, folder) as storage:
            yield storage
    else:
        with in_a_pod(cluster, env("E2E_S3_IMAGE") or "versity/versitygw:v1.8.0") as storage:
            yield storage
