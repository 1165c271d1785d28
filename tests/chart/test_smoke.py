"""`helm test`: what its pod says of the report server's certificate is true, told by a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from fakecluster.api import FakeApi
from fakecluster.certificates import self_signed
from fakecluster.desk import opened
from finetune_operator.report_server.server import Certificate

Objects = list[dict[str, Any]]
ADDRESS = "https://finetune-operator-reports.finetune-system.svc:8443"


def report_check(objects: Objects, url: str, ca: Path) -> str:
    """The part of the script that calls the report server, with its address and CA put in the place of the
    cluster's.
    """
    pod = next(each for each in objects if each["kind"] == "Pod")
    script = pod["spec"]["containers"][0]["args"][0]
    compile(script, "smoke", "exec")
    imports, part = script.splitlines()[0], script[script.index("# As a trainer does") :]
    mount = pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"]
    assert ADDRESS in part
    assert f"{mount}/ca.crt" in part
    return f"{imports}\n{part}".replace(ADDRESS, url).replace(f"{mount}/ca.crt", str(ca))


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_report_servers_certificate_is_checked_as_trainers_do(
    render: Callable[..., Objects], tmp_path: Path, trusted: bool
) -> None:
    served, other = tmp_path / "served", tmp_path / "other"
    for folder in (served, other):
        folder.mkdir()
        self_signed(folder, "reports")
    async with opened(FakeApi()) as desk:
        server = TestServer(desk.server.app(), scheme="https")
        await server.start_server(ssl=Certificate(served).context)
        try:
            ca = (served if trusted else other) / "ca.crt"
            script = report_check(render(), f"https://localhost:{server.port}", ca)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
        finally:
            await server.close()
    assert (process.returncode == 0) is trusted, said.decode()
    assert (b"certificate is in order" in said) is trusted
