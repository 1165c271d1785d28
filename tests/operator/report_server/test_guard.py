"""The report server before people who only hold connections: they are few, short and cheap, and real reports get
through.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fakecluster.api import FakeApi
from fakecluster.certificates import self_signed
from fakecluster.desk import PATH, UID, Desk, opened
from finetune_api.report import Report, Stage
from finetune_operator.report_server.guard import Guard, Limits, address_of
from finetune_operator.report_server.server import Certificate
from finetune_operator.report_server.serving import serving
from support.control_plane import free_ports

LIMITS = Limits(total=24, per_address=8, receive=0.6, work=5.0, spare=0.1)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Door:
    """The report server as the operator opens it, and ways to stand in it."""

    def __init__(self, desk: Desk, port: int, folder: Path, guard: Guard, cuts: Counter[str]) -> None:
        self.desk, self.port, self.guard, self.cuts = desk, port, guard, cuts
        self.trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))

    async def connect(self, sent: bytes = b"", *, tls: bool = True, host: str = "127.0.0.1") -> Stream:
        stream = await asyncio.open_connection(
            "127.0.0.1",
            self.port,
            ssl=self.trust if tls else None,
            server_hostname="localhost" if tls else None,
            local_addr=(host, 0),
        )
        if sent:
            stream[1].write(sent)
        return stream

    async def report(self, sequence: int) -> int:
        body = Report(job_id=UID, attempt=1, sequence=sequence, time=1, stage=Stage.TRAINING).to_json()
        connector = aiohttp.TCPConnector(ssl=self.trust)
        url, headers = f"https://localhost:{self.port}{PATH}", {"Authorization": "Bearer good"}
        session = aiohttp.ClientSession(connector=connector, headers=headers)
        async with session, session.post(url, json=body) as answer:
            return answer.status


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    self_signed(tmp_path, "reports")
    cuts: Counter[str] = Counter()
    (port,) = free_ports(1)
    async with FakeApi().running() as api, opened(api) as desk:
        tls = Certificate(tmp_path).context
        async with serving(
            desk.server.app(), port, tls, limits=LIMITS, count=lambda cause: cuts.update([cause])
        ) as guard:
            yield Door(desk, port, tmp_path, guard, cuts)


HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n".encode()
HALVES = [
    pytest.param(b"", False, id="nothing but a connection"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01", False, id="half a handshake"),
    pytest.param(b"", True, id="nothing after the handshake"),
    pytest.param(HEAD, True, id="half a header"),
    pytest.param(HEAD + b"\r\n{", True, id="half a body, no token"),
    pytest.param(HEAD + b"Authorization: Bearer good\r\n\r\n{", True, id="half a body, a good token"),
]


@pytest.mark.parametrize(("sent", "tls"), HALVES)
async def test_whoever_sends_but_half_is_cut(
    door: Door, sent: bytes, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_operator.report_server.server.BODY_SECONDS", 0.5)
    reader, writer = await door.connect(sent, tls=tls)
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            while await reader.read(1000):
                pass
        while len(door.guard):  # noqa: ASYNC110 - the guard tells nobody
            await asyncio.sleep(0.01)
    writer.close()


async def test_of_one_address_so_many_are_held_and_its_real_reports_get_through(door: Door) -> None:
    held = [await door.connect(tls=False) for _ in range(LIMITS.per_address)]
    await asyncio.sleep(LIMITS.spare)
    held += [await door.connect(tls=False) for _ in range(4)]
    assert len(door.guard) <= LIMITS.per_address
    await asyncio.sleep(LIMITS.spare)
    assert await door.report(1) == 200
    assert door.cuts["address"] >= 5
    for _, writer in held:
        writer.close()


async def test_when_all_room_is_taken_the_address_that_holds_most_gives_up_its_oldest(door: Door) -> None:
    held = []
    for n in range(3):
        held += [await door.connect(tls=False, host=f"127.0.0.{n + 2}") for _ in range(LIMITS.per_address)]
    await asyncio.sleep(0.05)
    assert len(door.guard) == LIMITS.total
    assert await door.report(1) == 200
    assert len(door.guard) <= LIMITS.total
    assert door.cuts["total"] >= 1
    for _, writer in held:
        writer.close()


async def test_a_connection_whose_report_was_taken_is_not_given_up_for_others(door: Door) -> None:
    body = Report(job_id=UID, attempt=1, sequence=1, time=1, stage=Stage.TRAINING).model_dump_json(by_alias=True)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await door.connect((head + body).encode())
    assert b"200 OK" in await reader.readline()
    held = [await door.connect(tls=False) for _ in range(LIMITS.per_address)]
    await asyncio.sleep(LIMITS.spare)
    held += [await door.connect(tls=False) for _ in range(LIMITS.per_address)]
    writer.write((head + body).encode())
    async with asyncio.timeout(5):
        while b"409" not in await reader.readline():  # heard: the same report once more
            pass
    for _, other in [*held, (reader, writer)]:
        other.close()


async def test_a_job_that_is_not_there_answers_as_a_bad_token_does(door: Door) -> None:
    desk = door.desk
    there = [await desk.send(token="guess") for _ in range(3)]
    asked = sum(call.plural == "tokenreviews" for call in desk.api.calls)
    missing = [await desk.send(token="guess", path=PATH.replace("spam-filter", "nothing")) for _ in range(3)]
    assert there == missing == [(401, "bad-token")] * 3
    assert sum(call.plural == "tokenreviews" for call in desk.api.calls) == 2 * asked  # the same way, the same time
    assert desk.counted("no-job") == 0


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("10.0.0.7", 40000), "10.0.0.7"),
        (("::ffff:10.0.0.7", 40000, 0, 0), "10.0.0.7"),
        (("2001:db8:1:2:3:4:5:6", 40000, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 40000, 0, 2), "fe80::/64"),
        (None, ""),
    ],
)
def test_whose_a_connection_is(peer: object, address: str) -> None:
    assert address_of(peer) == address
