"""The folder of one local job: its configuration, reports, logs and what is known of earlier attempts.

It belongs to the output URI, so that a second `finetune run` of the same file goes on where the first one stopped. Its
lock is handed to the trainer too: it stays held for as long as any process of the job lives, even if this one is
killed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune_api.exits import EXITS, Reason
from finetune_cli.terminal import Stop


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is remembered between two runs of the same job."""

    job_id: str
    spec_digest: str
    takeovers: int = 0
    attempt: int = 0  # the last one begun
    restarts: int = 0
    elapsed: float = 0.0  # seconds of all runs together; counts against the deadline
    start_time: str = ""
    completed: bool = False
    taking_over: bool = False  # the output still has to be taken over from an earlier job
    attempts: list[dict[str, Any]] = field(default_factory=list)  # status.AttemptStatus, newest first

    def but(self, **changes: Any) -> RunRecord:
        """The record with some fields changed."""
        return replace(self, **changes)


class DiskFull(Stop):
    """The local job's folder has no space left."""

    exit_code = EXITS[Reason.DISK_FULL].code or 1


def state_root() -> Path:
    """Where local jobs are kept: $XDG_STATE_HOME/finetune-operator."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "finetune-operator"


class StateDir:
    """The files of one local job."""

    def __init__(self, root: Path, name: str, output_uri: str) -> None:
        slug = re.sub(r"[^a-z0-9.-]", "-", name.lower())[:40]
        self.path = root / f"{slug}-{hashlib.sha256(output_uri.rstrip('/').encode()).hexdigest()[:8]}"
        self.config = self.path / "run.json"
        self.reports = self.path / "reports.jsonl"
        self.outcome = self.path / "outcome.json"
        self.status = self.path / "status.yaml"
        self.scratch = self.path / "scratch"
        self._record = self.path / "record.json"
        self._lock = -1

    def lock(self) -> int:
        """Make the folder and hold it; the descriptor is for the trainer to inherit.

        Raises Stop if somebody holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Stop(
                f"{self.path}: cannot be written: {error.strerror}", hint="Name another folder with --state-dir."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            raise Stop(
                f"this job is already running{f' (process {owner})' if owner else ''}",
                hint=f"Its log and reports are in {self.path}.",
            ) from None
        self.owner(os.getpid())
        return self._lock

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Name the folder where its file system is full."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message = f"{Reason.DISK_FULL}: no space is left in {self.path}"
            raise DiskFull(message, hint="Free space there, or name another folder with --state-dir.") from None

    def owner(self, pid: int) -> None:
        """Name the process that holds the lock, for others to read."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{pid}\n".encode(), 0)

    def record(self) -> RunRecord | None:
        """What earlier runs left, or None."""
        try:
            return RunRecord(**json.loads(self._record.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, record: RunRecord) -> None:
        """Replace the record, at once and whole."""
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps(asdict(record), indent=1))
        os.replace(new, self._record)

    def log(self, step: str, attempt: int) -> Path:
        """The log of one step of one attempt."""
        return self.path / f"{step}-{attempt}.log"

    def forget(self) -> None:
        """Remove what belongs to an earlier job at this output: logs, reports, scratch."""
        for path in self.path.iterdir():
            if path.name == "lock":
                continue
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def drop_scratch(self) -> None:
        """Remove caches and temporary files; nothing needs them once the job is complete."""
        shutil.rmtree(self.scratch, ignore_errors=True)
