"""One step of the trainer as a process of its own: started, followed through its reports and its log, stopped, killed.

It has its own session, so that Ctrl-C at the terminal reaches us alone: we then ask the launcher to stop, and it has
the time to write its checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import ValidationError

from finetune_api.report import Outcome, Report
from finetune_cli.local.state_dir import StateDir
from finetune_cli.terminal import Stop

Step = Literal["prepare", "launch", "lr-find"]
REPORT_BYTES = 16 << 20
"""Each report is a full snapshot of some KiB, once a second: days of them must not fill the disk."""


def require_trainer() -> None:
    """Raises Stop where it is not installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("finetune_trainer") is None:
        raise Stop("the trainer is not installed here", hint="pip install 'finetune-operator[cli,trainer]' brings it.")


class Tail:
    """The complete lines that were appended to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> list[str]:
        """New complete lines, without their ends."""
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return []
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def skip(self) -> Tail:
        """Leave out what is there already."""
        self.lines()
        return self

    def trim(self, limit: int) -> None:
        """Empty the file once more than `limit` bytes were read: its writer opens it anew, in append mode, for each
        line.
        """
        if self._file is not None and self._file.tell() > limit:
            os.truncate(self._path, 0)
            self._file.seek(0)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class TrainerProcess:
    """`python -m finetune_trainer STEP --config run.json`, its output in a log file."""

    def __init__(
        self, step: Step, state_dir: StateDir, attempt: int, environment: Mapping[str, str], lock: int
    ) -> None:
        self.log = state_dir.log(step, attempt)
        self._outcome = state_dir.outcome
        self._outcome.unlink(missing_ok=True)
        state_dir.reports.unlink(missing_ok=True)
        self._reports = Tail(state_dir.reports)
        self._output = Tail(self.log).skip()
        command = [sys.executable, "-m", "finetune_trainer", step, "--config", str(state_dir.config)]
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=dict(environment),
                pass_fds=(lock,),
            )
        state_dir.owner(self._process.pid)

    def exit_code(self) -> int | None:
        """None while it runs; 128 + the signal's number if a signal ended it."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def reports(self) -> list[Report]:
        """The reports since the last call. A torn or foreign line is passed over: the next snapshot replaces it."""
        found = []
        for line in self._reports.lines():
            with contextlib.suppress(ValidationError):
                found.append(Report.model_validate_json(line))
        self._reports.trim(REPORT_BYTES)
        return found

    def output(self) -> list[str]:
        """The lines of its log since the last call."""
        return self._output.lines()

    def outcome(self) -> Outcome | None:
        """Its last word, if it came to say one."""
        try:
            return Outcome.model_validate_json(self._outcome.read_bytes())
        except (OSError, ValidationError):
            return None

    def stop(self) -> None:
        """Ask the launcher to write a checkpoint and leave."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all its children at once; torch's elastic agent gives each worker a session of its own."""
        if self._process.poll() is None:
            for pid in [self._process.pid, *descendants(self._process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Leave nothing behind, whatever happened: no process, no open file."""
        self.kill()
        self._reports.close()
        self._output.close()


def descendants(pid: int) -> list[int]:
    """All processes below one, by Linux's /proc; none where there is no /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found
