"""What a model card says in Python, run as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Plain = Callable[..., Any]


def code_of(out: Path) -> str:
    """The card's code, for the folder where it lies."""
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    return code.replace('folder = "model"', f"folder = {str(out)!r}")


def model_of(out: Path) -> Plain:
    """The `model` that the card's code makes; what it then tries is left out."""
    found: dict[str, Any] = {}
    exec(code_of(out).partition("model.config = trunk.config\n")[0], found)
    return found["model"]


def logits_of(model: Plain, rows: tuple[dict[str, torch.Tensor], ...]) -> list[torch.Tensor]:
    """Of each row, as a `Probe` has it, [1, outputs]."""
    masked = ({"attention_mask": torch.ones_like(row["input_ids"])} if "input_ids" in row else {} for row in rows)
    return [model(**row, **more).logits for row, more in zip(rows, masked, strict=True)]
