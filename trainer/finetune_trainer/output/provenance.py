"""Where a result comes from: the versions of what computed it, and the license of the model that it started from."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finetune_trainer.methods import packages


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    found = {"python": platform.python_version()}
    libraries = ("torch", "transformers", *packages(), "tokenizers", "safetensors", "accelerate", "datasets")
    for name in ("finetune-operator", *libraries):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def license_of(model: Path) -> str | None:
    """The license that the base model's card states in its header, if it does."""
    try:
        lines = (model / "README.md").read_text(errors="replace").splitlines()
    except OSError:
        return None
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:200]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip().strip("'\"")
    return None
