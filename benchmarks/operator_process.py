"""What the operator's benchmarks share: the operator as its own process beside a fake API server, and its memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakecluster.api import FakeApi
from fakecluster.certificates import self_signed
from support.control_plane import free_ports

ROOT = Path(__file__).parents[1]


def python() -> str:
    """The interpreter of an environment like the image's: without torch and the Kubernetes client, where there is
    one.
    """
    lean = ROOT / ".venv-operator" / "bin" / "python"
    return str(lean) if lean.exists() else sys.executable


@contextlib.asynccontextmanager
async def operator(
    api: FakeApi, folder: Path, **env: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """`python -m finetune_operator` against `api`; gives the process and its metrics, probe and report ports."""
    ports = free_ports(3)
    self_signed(folder, "reports")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": api.url}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    variables = {
        "KUBECONFIG": str(kubeconfig),
        "FINETUNE_TRAINER_IMAGE": "trainer:bench",
        "FINETUNE_REPORT_URL": "https://localhost:8443",
        "FINETUNE_REPORT_CERT_DIR": str(folder),
        "FINETUNE_METRICS_PORT": str(ports[0]),
        "FINETUNE_PROBE_PORT": str(ports[1]),
        "FINETUNE_REPORT_PORT": str(ports[2]),
        "FINETUNE_NAMESPACE": "system",
        "FINETUNE_LOG_FORMAT": "text",
        "FINETUNE_LOG_LEVEL": "WARNING",
    }
    process = await asyncio.create_subprocess_exec(
        python(), "-m", "finetune_operator", env=os.environ | variables | env
    )
    try:
        yield process, ports
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)


def rss(pid: int) -> float:
    """Resident memory in MiB, as the kernel counts it."""
    return _memory(pid, "VmRSS")


def peak(pid: int) -> float:
    """The most that it has been, in MiB."""
    return _memory(pid, "VmHWM")


def cpu(pid: int) -> float:
    """Seconds of processor time that it has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, line: str) -> float:
    for found in Path(f"/proc/{pid}/status").read_text().splitlines():
        if found.startswith(line):
            return int(found.split()[1]) / 1024
    raise ValueError(f"no process {pid}")


async def until(true: Callable[[], Any], seconds: float = 300) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - the condition lies in another process
            await asyncio.sleep(0.05)
