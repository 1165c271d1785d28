"""S3 servers for tests: versitygw where its binary is found (VERSITYGW or PATH), and moto as it is (it closes every
connection), behind a proxy that keeps connections open, and behind one that does so over TLS.

`s3` is the best one there is; `s3_server` runs a test against every one that is there. All live for the session, on a
free port of the loopback, and hand out a fresh bucket for each test.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import StorageAccess
from support.control_plane import free_ports
from support.proxy import proxy_before
from support.tls import self_signed

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key-of-a-throw-away-server"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@dataclass
class S3Server:
    """A running server. `access` reaches it; CREDENTIALS must be in the environment."""

    name: str
    endpoint: str
    ca_file: str | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def access(self) -> StorageAccess:
        """For `location` and RunConfig."""
        return StorageAccess(endpoint=self.endpoint, ca_file=self.ca_file)

    @property
    def client(self) -> Any:
        """A plain boto3 client with its own credentials; over TLS its newer default sends bodies in chunks, which the
        proxy does not read.
        """
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            verify=self.ca_file,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(request_checksum_calculation="when_required"),
        )

    def bucket(self) -> str:
        """Make a new, empty bucket."""
        name = f"test-{next(self._numbers)}-{uuid.uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        return name


def find_versitygw() -> str | None:
    """The binary of versitygw, or None."""
    named = os.environ.get("VERSITYGW")
    return named if named and Path(named).exists() else shutil.which("versitygw")


def _has_xattr(folder: str) -> bool:
    try:
        os.setxattr(folder, "user.finetune-test", b"1")
    except OSError:
        return False
    return True


def run_versitygw(binary: str, certificate: tuple[Path, Path] | None = None) -> Iterator[S3Server]:
    """A server on a folder of its own; over TLS with a certificate and its key."""
    with tempfile.TemporaryDirectory(prefix="finetune-s3-") as folder:
        data = Path(folder, "data")
        data.mkdir()
        extra: list[str] = []
        if not _has_xattr(str(data)):
            Path(folder, "sidecar").mkdir()
            extra = ["--sidecar", f"{folder}/sidecar"]
        process, endpoint = _started(binary, extra, Path(folder), certificate)
        try:
            yield S3Server("versitygw", endpoint)
        finally:
            _stop(process)


def _started(
    binary: str, extra: list[str], folder: Path, certificate: tuple[Path, Path] | None
) -> tuple[subprocess.Popen[bytes], str]:
    """The process once it answers; another port is tried where somebody took the first in between."""
    tls = ["--cert", str(certificate[0]), "--key", str(certificate[1])] if certificate else []
    env = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    for last in (False, False, True):
        (port,) = free_ports(1)
        command = [binary, "--port", f"127.0.0.1:{port}", "--quiet", *tls, "posix", *extra, str(folder / "data")]
        with open(folder / "log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        try:
            _wait(port, process, folder / "log")
            return process, f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        except BaseException as error:
            _stop(process)
            if last or not isinstance(error, RuntimeError):
                raise
    raise AssertionError


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"versitygw ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
            return
        time.sleep(0.05)
    raise RuntimeError(f"versitygw did not answer within 30 s: {log.read_text()[-2000:]}")


@functools.cache
def _conditional_writes_one_by_one() -> None:
    """moto looks and writes in two steps, between which another thread may write: two could win."""
    from moto.s3.responses import S3Response

    put, lock = S3Response.put_object, threading.Lock()

    def one_by_one(self: Any) -> Any:
        conditional = self.headers.get("If-Match") or self.headers.get("If-None-Match")
        with lock if conditional else contextlib.nullcontext():
            return put(self)

    S3Response.put_object = one_by_one  # type: ignore[method-assign]


def _moto() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    _conditional_writes_one_by_one()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server("moto", f"http://{host}:{port}")
    finally:
        server.stop()


def serve(name: str) -> Iterator[S3Server]:
    """One of SERVERS, until the generator is closed."""
    if name == "versitygw":
        binary = find_versitygw()
        assert binary is not None
        yield from run_versitygw(binary)
        return
    for server in _moto():
        if name == "moto":
            yield server
            return
        with tempfile.TemporaryDirectory(prefix="finetune-tls-") as folder:
            certificate = self_signed(Path(folder)) if name == "tls" else None
            with proxy_before(server.endpoint, certificate) as proxy:
                yield S3Server(name, proxy.endpoint, str(certificate[0]) if certificate else None)


SERVERS = [*(["versitygw"] if find_versitygw() else []), "keep-alive", "tls", "moto"]
"""What is there, the most like a real one first."""


@pytest.fixture(scope="session", params=SERVERS)
def s3_server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """Each server that is there, in turn."""
    yield from serve(request.param)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The best server that is there."""
    yield from serve(SERVERS[0])


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' credentials in the environment, and nothing of the machine's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """moto's server: it checks no signature, so that a proxy may stand before it."""
    yield from serve("moto")


@pytest.fixture(scope="session")
def versitygw() -> Iterator[S3Server]:
    """versitygw; ask `find_versitygw` first."""
    yield from serve("versitygw")
