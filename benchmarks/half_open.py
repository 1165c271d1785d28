"""The report server while somebody holds thousands of connections that send but half: what they cost, and who gets
through.

A quarter each: nothing but a TCP connection, half a TLS handshake, half a header, half a body. Once from one address,
once from forty. Meanwhile a trainer reports twice a second, from the same machine. The operator is a process of its
own, with a fake API server in this one. One JSON line; memory in MiB above what the operator had before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from operator_process import operator, rss, until

from fakecluster.api import FakeApi
from fakecluster.driver import job
from fakecluster.node import COMPONENT, Ending, Node, success
from fakecluster.objects import Object
from finetune_api.report import Report, Stage

PATH = "/v1/namespaces/team/jobs/job-0/report"
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\nContent-Length: 60000\r\n".encode()
KINDS: list[tuple[bytes, bool]] = [
    (b"", False),
    (b"\x16\x03\x01\x02\x00\x01", False),
    (HEAD, True),
    (HEAD + b"\r\n{", True),
]


async def hold(port: int, number: int, addresses: int, trust: ssl.SSLContext, ages: list[float]) -> None:
    """One half connection, until the server ends it."""
    sent, tls = KINDS[number % len(KINDS)]
    began = time.monotonic()
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            port,
            ssl=trust if tls else None,
            server_hostname="localhost" if tls else None,
            local_addr=(f"127.0.1.{1 + number % addresses}", 0),
        )
        writer.write(sent)
        while await reader.read(1000):
            pass
        writer.close()
    ages.append(time.monotonic() - began)


async def attack(
    pid: int, ports: list[int], trust: ssl.SSLContext, uid: str, count: int, addresses: int
) -> dict[str, Any]:
    before, ages, codes, most = rss(pid), list[float](), dict[str, int](), 0.0
    holders = []
    sequence = int(time.time() * 1000)
    began = time.monotonic()

    async def open_all() -> None:
        for number in range(count):
            holders.append(asyncio.create_task(hold(ports[2], number, addresses, trust, ages)))
            await asyncio.sleep(0.001)

    opening = asyncio.create_task(open_all())
    while not opening.done() or len(ages) < count:
        sequence += 1
        body = Report(job_id=uid, attempt=1, sequence=sequence, time=1, stage=Stage.TRAINING).to_json()
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=trust), timeout=aiohttp.ClientTimeout(total=5)
                ) as session,
                session.post(
                    f"https://localhost:{ports[2]}{PATH}", json=body, headers={"Authorization": "Bearer good"}
                ) as answer,
            ):
                code = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            code = type(error).__name__
        codes[code] = codes.get(code, 0) + 1
        most = max(most, rss(pid))
        await asyncio.sleep(0.5)
        if time.monotonic() - began > 90:
            break
    for holder in holders:
        holder.cancel()
    return {
        "connections": count,
        "addresses": addresses,
        "extra_rss_mib": round(most - before, 1),
        "longest_held_seconds": round(max(ages), 1),
        "ended_by_the_server": len(ages),
        "real_reports": codes,
    }


async def measure(count: int) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    async with FakeApi().running() as api:
        with tempfile.TemporaryDirectory() as folder:
            async with operator(api, Path(folder)) as (process, ports):
                node = Node(api.objects)

                def end(pod: Object) -> Ending | None:
                    return None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)

                node.end = end
                made = api.objects.create("finetunejobs", "team", job("job-0", "team", workers={"replicas": 1}))
                uid = made["metadata"]["uid"]

                def workers() -> list[Object]:
                    node.tick()
                    pods = api.objects.list("pods", "team", f"{COMPONENT}=worker")
                    return [p for p in pods if p["status"].get("phase") == "Running"]

                await until(workers)
                pod = workers()[0]["metadata"]
                extra = {
                    "authentication.kubernetes.io/pod-name": [pod["name"]],
                    "authentication.kubernetes.io/pod-uid": [pod["uid"]],
                }
                api.tokens["good"] = (uid, {"username": "system:serviceaccount:team:default", "extra": extra})
                await asyncio.sleep(3)
                trust = ssl.create_default_context(cafile=f"{folder}/ca.crt")
                found = [await attack(process.pid, ports, trust, uid, count, addresses) for addresses in (1, 40)]
    return {"benchmark": "half_open", "attacks": found, "targets": {"extra_rss_mib": 30, "longest_held_seconds": 15}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2_000)
    print(json.dumps(asyncio.run(measure(parser.parse_args().connections))))


if __name__ == "__main__":
    main()
