"""Manifests that `finetune init` writes for files of rows."""

from __future__ import annotations

import json
from typing import Any

import yaml

from cli.conftest import Terminal


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(terminal: Terminal, name: str, *options: str) -> tuple[dict[str, Any], str]:
    """The spec that was written for a data file, and what was said; the manifest is valid for a local run."""
    done = terminal.run("init", name, "-o", "made.yaml", *options)
    assert done.returncode == 0, done.stderr
    valid = terminal.run("validate", "--local", "made.yaml")
    assert valid.returncode == 0, valid.stdout
    return yaml.safe_load((terminal.folder / "made.yaml").read_text())["spec"], done.stderr
