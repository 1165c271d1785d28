"""Storage keeps its promises on every kind of store: ranges, conditional writes with one winner, errors that a user can act on."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import StorageAccess
from finetune_trainer.storage import Location, blaming, location, open_store
from support.control_plane import free_ports
from support.s3 import S3Server, find_versitygw, run_versitygw


@pytest.fixture(params=["file", "moto", "versitygw"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None) -> Location:
    """An empty location of each kind."""
    if request.param == "file":
        return location(tmp_path.as_uri(), StorageAccess())
    if request.param == "versitygw" and not find_versitygw():
        pytest.skip("no versitygw here (set VERSITYGW)")
    server: S3Server = request.getfixturevalue(request.param)
    return location(f"s3://{server.bucket()}/a/b/", server.access)


def test_what_was_written_is_read_listed_and_deleted(place: Location) -> None:
    place.put("x/one.bin", b"0123456789")
    place.put("x/two.bin", b"")
    place.put("y.bin", b"y")
    listed = list(place.list())
    assert [(i.key, i.size) for i in listed] == [("x/one.bin", 10), ("x/two.bin", 0), ("y.bin", 1)]
    assert [i.key for i in place.child("x").list()] == ["one.bin", "two.bin"]
    assert [i.key for i in place.list("x/t")] == ["x/two.bin"]
    assert place.head("x/one.bin") == listed[0]
    assert place.head("x") is None
    assert place.head("nowhere") is None
    assert place.get("x/one.bin") == b"0123456789"
    assert place.get("x/two.bin") == b""
    assert place.get("x/one.bin", start=2, end=5) == b"234"
    assert place.get("x/one.bin", start=8, end=99) == b"89"
    assert place.get("x/one.bin", start=10, end=20) == b""
    assert place.get("x/one.bin", start=4) == b"456789"
    with place.open("x/one.bin") as source:
        assert source.read(3) + source.read() == b"0123456789"
    with pytest.raises(FileNotFoundError):
        place.get("nowhere")
    with pytest.raises(FileNotFoundError):
        place.open("nowhere").read()
    assert place.find("nowhere") is None
    place.delete(["x/one.bin", "nowhere", "y.bin"])
    assert [i.key for i in place.list()] == ["x/two.bin"]


def test_a_rewritten_object_is_refused_by_its_old_tag(place: Location) -> None:
    before = place.put("data", b"one")
    assert place.get("data", if_match=before.etag) == b"one"
    after = place.put("data", b"two!")
    assert before.etag != after.etag
    assert after == place.head("data")
    for read in (lambda: place.get("data", if_match=before.etag), lambda: place.open("data", if_match=before.etag)):
        with pytest.raises(JobError) as caught:
            read()
        assert caught.value.reason == Reason.DATA_CHANGED
        assert place.uri("data") in caught.value.message


def test_a_conditional_write_has_exactly_one_winner(place: Location) -> None:
    place.put("warm-up", b"", if_none_match=True)  # the probe is behind us
    for round_ in range(5):
        start = threading.Barrier(8)

        def race(n: int, key: str = f"gen/{round_}.json", start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                place.put(key, b"%d" % n, if_none_match=True)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert sum(won) == 1
        assert place.get(f"gen/{round_}.json") == b"%d" % won.index(True)
    assert place.store.conditional_writes
    assert [i.key for i in place.list()] == [*(f"gen/{n}.json" for n in range(5)), "warm-up"]  # no probe left behind


def test_files_of_many_parts_arrive_whole(place: Location, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytes(range(256)) * (160 << 10)  # 40 MiB: three parts
    path = tmp_path_factory.mktemp("big") / "big.bin"
    path.write_bytes(content)
    info = place.put_file("big.bin", path, if_none_match=True)
    assert info == place.head("big.bin")
    with place.open("big.bin") as source:
        assert source.read() == content
    with pytest.raises(FileExistsError):
        place.put_file("big.bin", path, if_none_match=True)
    path.write_bytes(b"small")
    place.put_file("big.bin", path)
    assert place.get("big.bin") == b"small"


def test_listing_goes_beyond_a_page(s3: S3Server, s3_credentials: None) -> None:
    place = location(f"s3://{s3.bucket()}/many", s3.access)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: place.put(f"{n:04}", b""), range(1005)))
    assert [i.key for i in place.list()] == [f"{n:04}" for n in range(1005)]


# ---------------------------------------------------------------------- errors


def test_a_missing_bucket_is_named(s3_server: S3Server, s3_credentials: None) -> None:
    place = location("s3://no-such-bucket-here/x", s3_server.access)
    for act in (
        lambda: list(place.list()),
        lambda: place.put("k", b""),
        lambda: place.put("k", b"", if_none_match=True),
    ):
        with pytest.raises(JobError) as caught:
            act()
        assert caught.value.reason == Reason.BUCKET_NOT_FOUND
        assert "no-such-bucket-here" in caught.value.message
        assert s3_server.endpoint in caught.value.message


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_access_denied_without_telling_them(
    wrong: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, s3_credentials: None
) -> None:
    if not find_versitygw():
        pytest.skip("moto checks no credentials; no versitygw here")
    server: S3Server = request.getfixturevalue("versitygw")
    bucket = server.bucket()
    monkeypatch.setenv(wrong, "canary-value-of-a-secret")
    place = location(f"s3://{bucket}/x", server.access)
    for act in (
        lambda: list(place.list()),
        lambda: place.head("k"),
        lambda: place.get("k"),
        lambda: place.put("k", b"", if_none_match=True),
    ):
        with pytest.raises(JobError) as caught:
            act()
        assert caught.value.reason == Reason.ACCESS_DENIED
        assert f"s3://{bucket}/x" in caught.value.message
        assert "canary" not in str(caught.value)


def test_absent_credentials_are_access_denied(
    s3: S3Server, s3_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(JobError) as caught:
        list(location("s3://bucket/x", s3.access).list())
    assert caught.value.reason == Reason.ACCESS_DENIED
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_a_refused_port_is_storage_unavailable_after_the_retries(s3_credentials: None) -> None:
    (port,) = free_ports(1)
    place = location("s3://bucket/x", StorageAccess(endpoint=f"http://127.0.0.1:{port}"), patience=0.5)
    with pytest.raises(JobError) as caught:
        place.get("k")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    assert f"http://127.0.0.1:{port}" in caught.value.message
    assert "s3://bucket/x/k" in caught.value.message


def test_a_missing_ca_file_is_said_at_once(s3: S3Server, s3_credentials: None) -> None:
    access = s3.access.model_copy(update={"ca_file": "/nonexistent/ca.crt"})
    with pytest.raises(JobError, match=r"/nonexistent/ca.crt") as caught:
        location("s3://bucket/x", access).get("k")
    assert caught.value.field == "spec.storage.ca"


def test_a_private_ca_is_needed_and_enough(tmp_path: Path, s3_credentials: None) -> None:
    binary = find_versitygw()
    if not binary:
        pytest.skip("moto's server has no TLS of its own; no versitygw here")
    ca = self_signed(tmp_path)
    for server in run_versitygw(binary, (ca, tmp_path / "key.pem")):
        place = location("s3://bucket/x", server.access)
        with pytest.raises(JobError, match="not trusted") as caught:
            place.get("k")
        assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.storage.ca")
        place = location("s3://bucket/x", server.access.model_copy(update={"ca_file": str(ca)}))
        with pytest.raises(JobError) as caught:
            place.get("k")
        assert caught.value.reason == Reason.BUCKET_NOT_FOUND  # the server's own answer


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own CA; the key lies beside it as key.pem."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "ca.pem"


@pytest.mark.parametrize("uri", ["s3://UPPER_case!/x", "gs://bucket/x", "file://relative/x"])
def test_a_uri_that_cannot_be_is_refused(uri: str, s3: S3Server, s3_credentials: None) -> None:
    with pytest.raises(JobError) as caught:
        list(location(uri, s3.access).list())
    assert caught.value.reason in (Reason.INVALID_CONFIG, Reason.BUCKET_NOT_FOUND)


def test_a_folder_that_may_not_be_written_is_access_denied(tmp_path: Path) -> None:
    place = location("file:///sys/finetune-test", StorageAccess())
    with pytest.raises(JobError) as caught:
        place.put("x", b"")
    assert caught.value.reason in (Reason.ACCESS_DENIED, Reason.STORAGE_UNAVAILABLE)


def test_the_blamed_field_is_the_innermost() -> None:
    with pytest.raises(JobError) as caught, blaming("outer"), blaming("inner"):
        raise JobError(Reason.ACCESS_DENIED, "no")
    assert caught.value.field == "inner"


def test_file_uris_are_percent_decoded(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    place = location(folder.as_uri(), StorageAccess())
    assert place.get("a.txt") == b"a"
    assert open_store(place.uri("a.txt"), StorageAccess())[1] == str(folder / "a.txt").lstrip("/")


# ---------------------------------------------------------------------- faults on the way


class FaultProxy(ThreadingHTTPServer):
    """Forwards requests to a server; `fault(method, path, headers)` may name what goes wrong with this one.

    "503": answered so; "lost": the request is carried out and its answer dropped; "cut": half of the body is sent.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = target
        self.faults: list[tuple[str, str]] = []  # (method, kind), each used once
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    def take(self, method: str) -> str | None:
        for n, (wanted, kind) in enumerate(self.faults):
            if wanted == method:
                del self.faults[n]
                return kind
        return None


class _Forward(BaseHTTPRequestHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.take(self.command)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "transfer-encoding")}
        self.server.seen.append((self.command, self.path, headers))
        if kind == "503":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers.setdefault("Content-Type", "application/octet-stream")  # else urllib says it is a form
        request = Request(self.server.target + self.path, data=body or None, headers=headers, method=self.command)
        try:
            with urlopen(request, timeout=20) as answer:
                status, fields, data = answer.status, answer.headers, answer.read()
        except OSError as error:
            status, fields, data = error.code, error.headers, error.read()  # type: ignore[attr-defined]
        if kind == "lost":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in fields.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = fields.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
        if kind == "cut":
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def proxied(request: pytest.FixtureRequest, s3_credentials: None) -> Iterator[tuple[FaultProxy, Location]]:
    """A location on moto (which does not check signatures, so that a proxy may stand between), and the proxy."""
    server: S3Server = request.getfixturevalue("moto")
    proxy = FaultProxy(server.endpoint)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield (
            proxy,
            location(f"s3://{server.bucket()}/p", StorageAccess(endpoint=f"http://127.0.0.1:{proxy.server_port}")),
        )
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def test_transient_errors_are_retried(proxied: tuple[FaultProxy, Location]) -> None:
    proxy, place = proxied
    proxy.faults = [("PUT", "503"), ("PUT", "503"), ("GET", "503"), ("HEAD", "503")]
    place.put("k", b"value")
    assert place.get("k") == b"value"
    assert place.head("k") is not None
    assert proxy.faults == []


def test_a_broken_download_goes_on_from_where_it_was_and_only_of_the_same_object(
    proxied: tuple[FaultProxy, Location],
) -> None:
    proxy, place = proxied
    content = bytes(range(256)) * 4096
    place.put("k", content)
    proxy.faults, proxy.seen = [("GET", "cut"), ("GET", "cut")], []
    assert place.get("k") == content
    asked = [(h.get("Range"), h.get("If-Match")) for m, _, h in proxy.seen if m == "GET"]
    assert len(asked) == 3
    assert asked[0] == (None, None)
    assert all(match for _, match in asked[1:])
    starts = [int(range_.removeprefix("bytes=").rstrip("-")) for range_, _ in asked[1:] if range_]
    assert 0 < starts[0] < starts[1] < len(content)


def test_a_write_whose_answer_was_lost_is_known_as_ours(proxied: tuple[FaultProxy, Location]) -> None:
    proxy, place = proxied
    place.put("warm-up", b"", if_none_match=True)
    proxy.faults = [("PUT", "lost")]
    place.put("claim", b"mine", if_none_match=True)  # the retry meets a 412 of our own making
    assert place.get("claim") == b"mine"
    with pytest.raises(FileExistsError):
        place.put("claim", b"mine", if_none_match=True)


def test_a_retry_that_meets_somebody_elses_write_has_lost(proxied: tuple[FaultProxy, Location]) -> None:
    proxy, place = proxied
    place.put("claim", b"theirs", if_none_match=True)
    proxy.faults = [("PUT", "503")]
    with pytest.raises(FileExistsError):
        place.put("claim", b"theirs", if_none_match=True)  # same bytes, another writer
