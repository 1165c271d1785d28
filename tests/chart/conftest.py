"""Rendering the chart with the helm found on PATH or in HELM."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "finetune-operator"
Objects = list[dict[str, Any]]


@pytest.fixture(scope="session")
def helm() -> str:
    found = os.environ.get("HELM") or shutil.which("helm")
    if not found:
        pytest.skip("no helm here: put it on PATH or name it in HELM to test the chart")
    return found


@pytest.fixture(scope="session")
def run_helm(helm: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([helm, *args], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Objects]:
    """render("a=b", …) returns the objects that `helm template` makes with these --set values."""

    def template(*values: str) -> Objects:
        sets = [part for value in values for part in ("--set", value)]
        done = run_helm("template", "finetune", str(CHART), "--namespace", "finetune-system", *sets)
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return template
