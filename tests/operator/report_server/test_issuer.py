"""The report server's own certificate: made once into an empty Secret, found again by the next operator, renewed in
time.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakecluster.api import Call, FakeApi
from fakecluster.objects import Object
from fakecluster.run import running
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import NotFound
from finetune_operator.report_server.issuer import Issuer
from finetune_operator.report_server.server import Certificate

REF = ("secrets", "system", "report-cert")
HOSTS = ("localhost", "reports.system.svc")
DAY = 86400.0


class Bench:
    """Operators, one after the other, before one Secret that a chart has made without data."""

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api, self.now, self.folder = api, time.time(), folder
        self.kube = KubeClient(Access(api.url))
        api.objects.create("secrets", "system", {"metadata": {"name": "report-cert"}, "type": "Opaque"})

    def issuer(self, name: str = "a", hosts: tuple[str, ...] = HOSTS) -> Issuer:
        return Issuer(self.kube, "system", "report-cert", hosts, self.folder / name, days=3650, clock=lambda: self.now)

    def files(self, name: str = "a") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / name).iterdir()}

    def secret(self) -> Object:
        return self.api.objects.get(REF)

    def writes(self) -> int:
        return sum(call.plural == "secrets" and call.verb == "update" for call in self.api.calls)


@pytest.fixture
async def bench(api: FakeApi, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(api, tmp_path)
    yield bench
    await bench.kube.close()


async def handshake(folder: Path, ca: bytes) -> None:
    """As a trainer: by name, with the CA it was handed, as strict as Python 3.13 is by default."""
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=Certificate(folder).context
    )
    context = ssl.create_default_context(cadata=ca.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="reports.system.svc")
        writer.close()


async def test_the_first_start_makes_a_certificate_that_trainers_accept_and_the_next_one_finds_it(bench: Bench) -> None:
    await bench.issuer("a").step()
    made = bench.files("a")
    assert set(made) == {"tls.crt", "tls.key", "ca.crt"}  # the CA's key stays in the Secret
    await handshake(bench.folder / "a", made["ca.crt"])
    assert (bench.folder / "a" / "tls.key").stat().st_mode & 0o077 == 0
    await bench.issuer("b").step()
    assert bench.files("b") == made
    assert bench.writes() == 1


async def test_it_is_renewed_before_its_end_under_the_ca_that_trainers_trust(bench: Bench) -> None:
    await bench.issuer().step()
    before = bench.files()
    bench.now += 250 * DAY
    await bench.issuer().step()
    assert bench.files() == before
    bench.now += 70 * DAY
    await bench.issuer().step()
    after = bench.files()
    assert after["ca.crt"] == before["ca.crt"]
    assert after["tls.crt"] != before["tls.crt"]


async def test_a_ca_that_ends_is_replaced(bench: Bench) -> None:
    await bench.issuer().step()
    before = bench.files()
    bench.now += 3400 * DAY
    await bench.issuer().step()
    assert bench.files()["ca.crt"] != before["ca.crt"]


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key", "ca.crt"])
async def test_a_secret_that_was_spoilt_is_made_good(bench: Bench, broken: str) -> None:
    await bench.issuer().step()
    secret = bench.secret()
    spoilt = base64.b64encode(b"nonsense").decode()
    bench.api.objects.replace(REF, secret | {"data": secret["data"] | {broken: spoilt}})
    await bench.issuer().step()
    found = bench.files()
    await handshake(bench.folder / "a", found["ca.crt"])


async def test_another_name_of_the_service_gets_another_certificate(bench: Bench) -> None:
    await bench.issuer().step()
    before = bench.files()
    await bench.issuer(hosts=(*HOSTS, "more.system.svc")).step()
    assert bench.files()["ca.crt"] == before["ca.crt"]
    assert bench.files()["tls.crt"] != before["tls.crt"]


async def test_of_two_that_make_one_at_once_the_second_takes_the_firsts(bench: Bench) -> None:
    first = True

    def race(call: Call) -> None:
        nonlocal first
        if call.plural == "secrets" and call.verb == "update" and first:
            first = False
            bench.api.objects.set_status(REF, touched=True)  # another's write, as far as versions tell

    bench.api.faults.append(race)
    await asyncio.gather(bench.issuer("a").step(), bench.issuer("b").step())
    assert bench.files("a") == bench.files("b")


async def test_a_secret_that_is_missing_is_said_so(bench: Bench) -> None:
    bench.api.objects.remove(REF)
    with pytest.raises(NotFound):
        await bench.issuer().step()


async def test_the_operator_serves_with_it_from_its_first_start(api: FakeApi, tmp_path: Path) -> None:
    api.objects.create("secrets", "system", {"metadata": {"name": "report-cert"}, "type": "Opaque"})
    options = {"namespace": "system", "report_secret": "report-cert", "report_names": HOSTS}
    async with running(api, tmp_path, report_cert_dir=tmp_path / "own", **options) as run:
        await run.until(lambda: run.operator.lease.is_open)
        ca = (tmp_path / "own" / "ca.crt").read_text()
        assert run.operator.certificate.ca == ca
        context = ssl.create_default_context(cadata=ca)
        _, writer = await asyncio.open_connection("127.0.0.1", run.ports[2], ssl=context, server_hostname="localhost")
        writer.close()


async def test_while_no_certificate_can_be_had_the_probe_is_answered_and_a_stop_is_heard(
    api: FakeApi, tmp_path: Path
) -> None:
    options = {"namespace": "system", "report_secret": "missing", "report_names": HOSTS}
    async with running(api, tmp_path, report_cert_dir=tmp_path / "own", **options) as run:
        await run.until(lambda: any(call.plural == "secrets" for call in api.calls))
        assert (await run.get(run.ports[1], "/healthz"))[0] == 200
        run.operator.stop()
        assert run.task
        await asyncio.wait_for(run.task, 10)
