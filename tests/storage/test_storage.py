"""Storage keeps its promises on every kind of store: ranges, conditional writes with one winner, errors that a user can
act on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import StorageAccess
from finetune_trainer.storage import Location, blaming, location, open_store
from finetune_trainer.storage.s3 import bucket as bucket_module
from finetune_trainer.storage.s3.bucket import Bucket
from support.control_plane import free_ports
from support.proxy import Proxy, proxy_before
from support.s3 import SERVERS, S3Server, find_versitygw, serve
from support.tls import self_signed


@pytest.fixture(scope="session", params=["file", *SERVERS])
def server(request: pytest.FixtureRequest) -> Iterator[S3Server | None]:
    """Each kind of store; None stands for a folder."""
    if request.param == "file":
        yield None
    else:
        yield from serve(request.param)


@pytest.fixture
def place(server: S3Server | None, tmp_path: Path, s3_credentials: None) -> Location:
    """An empty location of each kind."""
    if server is None:
        return location(tmp_path.as_uri(), StorageAccess())
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


def test_a_private_ca_is_needed_and_enough(tmp_path: Path, moto: S3Server, s3_credentials: None) -> None:
    certificate = self_signed(tmp_path)
    ca = certificate[0]
    with proxy_before(moto.endpoint, certificate) as server:
        access = StorageAccess(endpoint=server.endpoint)
        place = location("s3://bucket/x", access)
        with pytest.raises(JobError, match="not trusted") as caught:
            place.get("k")
        assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.storage.ca")
        place = location("s3://bucket/x", access.model_copy(update={"ca_file": str(ca)}))
        with pytest.raises(JobError) as caught:
            place.get("k")
        assert caught.value.reason == Reason.BUCKET_NOT_FOUND  # the server's own answer


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


@pytest.fixture
def proxied(request: pytest.FixtureRequest, s3_credentials: None) -> Iterator[tuple[Proxy, Location]]:
    """A location on moto (which does not check signatures, so that a proxy may stand between), and the proxy."""
    server: S3Server = request.getfixturevalue("moto")
    with proxy_before(server.endpoint) as proxy:
        yield proxy, location(f"s3://{server.bucket()}/p", StorageAccess(endpoint=proxy.endpoint))


def test_transient_errors_are_retried(proxied: tuple[Proxy, Location]) -> None:
    proxy, place = proxied
    proxy.faults = [("PUT", "503"), ("PUT", "503"), ("GET", "503"), ("HEAD", "503")]
    place.put("k", b"value")
    assert place.get("k") == b"value"
    assert place.head("k") is not None
    assert proxy.faults == []


def test_a_broken_download_goes_on_from_where_it_was_and_only_of_the_same_object(
    proxied: tuple[Proxy, Location],
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


def test_a_write_whose_answer_was_lost_is_known_as_ours(proxied: tuple[Proxy, Location]) -> None:
    proxy, place = proxied
    place.put("warm-up", b"", if_none_match=True)
    proxy.faults = [("PUT", "lost")]
    place.put("claim", b"mine", if_none_match=True)  # the retry meets a 412 of our own making
    assert place.get("claim") == b"mine"
    with pytest.raises(FileExistsError):
        place.put("claim", b"mine", if_none_match=True)


def test_a_retry_that_meets_somebody_elses_write_has_lost(proxied: tuple[Proxy, Location]) -> None:
    proxy, place = proxied
    place.put("claim", b"theirs", if_none_match=True)
    proxy.faults = [("PUT", "503")]
    with pytest.raises(FileExistsError):
        place.put("claim", b"theirs", if_none_match=True)  # same bytes, another writer


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> tuple[Bucket, list[float]]:
    """A bucket whose patience is 30 s of a clock that only requests move."""
    now = [0.0]
    monkeypatch.setattr(bucket_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None))
    return Bucket("bucket", StorageAccess(), patience=30.0), now


def test_patience_counts_from_the_first_failure(clocked: tuple[Bucket, list[float]]) -> None:
    bucket, clock = clocked
    tries = 0

    def slow_then_good() -> str:
        nonlocal tries
        tries += 1
        clock[0] += 90.0 if tries == 1 else 1.0  # a large part on a slow line, broken at its end
        if tries < 3:
            raise ConnectionError
        return "written"

    assert bucket.call("write", "k", slow_then_good) == "written"

    def never() -> str:
        nonlocal tries
        tries += 1
        clock[0] += 20.0
        raise ConnectionError

    tries = 0
    with pytest.raises(JobError) as caught:
        bucket.call("write", "k", never)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert tries == 3  # 20 s until the first failure; the others are 20 and 40 s later
