"""How much memory is left for snapshots: what the container may still use, and no more than the machine has."""

from __future__ import annotations

from pathlib import Path

MARGIN_BYTES = 256 << 20
"""Stays free beside a snapshot: the parts that are being sent, and what a step needs for a moment."""


def fits(size: int, root: Path = Path("/")) -> bool:
    """Whether a copy of so many bytes has room. True where nothing is known."""
    free = available(root)
    return free is None or size + MARGIN_BYTES <= free


def available(root: Path = Path("/")) -> int | None:
    """Bytes that may still be used; None where nothing says so (not Linux)."""
    known = [found for found in (_of_container(root), _of_machine(root)) if found is not None]
    return min(known, default=None)


def _of_machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _of_container(root: Path) -> int | None:
    """By the control group's limit (version 2); pages of files that were only read are given back when needed."""
    group = root / "sys/fs/cgroup"
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if not limit or not used or not limit[0].isdigit():
        return None
    files = sum(int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith("inactive_file "))
    return max(0, int(limit[0]) - int(used[0]) + files)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
