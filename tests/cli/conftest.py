"""A terminal for tests: the real command lines as processes, with a home of their own and a trainer that does as
told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

FAKE = Path(__file__).parent / "fake"

MANIFEST = """\
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneJob
metadata: {name: spam-filter}
spec:
  task: text-classification
  model: {uri: file:///models/minilm}
  data:
    train: {uri: "file:///mail/train/*.jsonl.zst"}
    validation: {fraction: 0.1}
    columns: {text: body, label: label}
  method: {type: lora, lora: {rank: 8}}
  training: {epochs: 3, globalBatchSize: 32, learningRate: 2e-4}
  output: {uri: OUTPUT}
"""


@dataclass
class Terminal:
    """Runs `finetune` in a folder, without a tty."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def environ(self, script: list[dict[str, Any]] | None = None, **more: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_", "FINETUNE_"))}
        fake = {
            "PYTHONPATH": str(FAKE),
            "FAKE_SCRIPT": json.dumps(script),
            "FAKE_COUNT": str(self.folder / "count"),
            "FAKE_SEEN": str(self.folder / "seen"),
        }
        home = {
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }
        return {**clean, **home, **(fake if script is not None else {}), **self.environment, **more}

    def command(self, *arguments: str, program: str = "finetune_cli") -> list[str]:
        return [sys.executable, "-m", program, *arguments]

    def run(
        self,
        *arguments: str,
        script: list[dict[str, Any]] | None = None,
        stdin: str = "",
        program: str = "finetune_cli",
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end. Nothing that it prints may be a traceback."""
        done = subprocess.run(
            self.command(*arguments, program=program),
            cwd=self.folder,
            env=self.environ(script, **more),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def start(self, *arguments: str, script: list[dict[str, Any]], **more: str) -> subprocess.Popen[str]:
        """A command that goes on."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environ(script, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def seen(self) -> list[dict[str, Any]]:
        """What the trainer's processes were given, in order."""
        path = self.folder / "seen"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write(self, text: str = MANIFEST, name: str = "job.yaml") -> Path:
        """A manifest file whose output lies in the folder."""
        path = self.folder / name
        path.write_text(text.replace("OUTPUT", f"file://{self.folder}/out"))
        return path


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A terminal in an empty folder."""
    return Terminal(tmp_path)


def status_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The status that a command printed."""
    status = yaml.safe_load(done.stdout)["status"]
    assert isinstance(status, dict)
    return status
