"""The report server's certificate is followed: the CA that workers are handed is the one that it serves."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from fakecluster.certificates import self_signed
from fakecluster.desk import PATH, Desk
from finetune_operator.report_server.server import Certificate


async def test_a_rotated_certificate_serves_new_connections_and_a_broken_one_does_not_stop_the_old(
    desk: Desk, tmp_path: Path
) -> None:
    self_signed(tmp_path, "first")
    certificate = Certificate(tmp_path)
    first = certificate.ca
    server = TestServer(desk.server.app(), scheme="https")
    await server.start_server(ssl=certificate.context)
    try:
        url = f"https://localhost:{server.port}{PATH}"

        async def trusted(ca: str | None) -> bool:
            context = ssl.create_default_context(cadata=ca)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
                try:
                    async with session.post(url) as answer:
                        return answer.status == 401
                except aiohttp.ClientConnectorCertificateError:
                    return False

        assert await trusted(first)
        self_signed(tmp_path, "second")
        assert certificate.load()
        assert certificate.ca != first
        assert await trusted(certificate.ca)
        assert not await trusted(first)
        (tmp_path / "tls.key").write_text("half written")
        with pytest.raises(ssl.SSLError):
            certificate.load()
        assert await trusted(certificate.ca)
    finally:
        await server.close()
