"""What a model folder says about itself: its class with a task's head and its longest input; read from its files.

transformers' sources are looked at, not imported, so that the prepare step knows within a second what the workers would
find out after ten. Nothing from the model's own repository is ever run.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.tasks import TASKS
from finetune_trainer.model import auto
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.model.uri"


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which class of transformers a model is with a head, and how many tokens it can take (None: no limit)."""

    module: str
    class_name: str
    max_positions: int | None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Raises JobError."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise JobError(Reason.MODEL_NOT_FOUND, "the model folder has no config.json", field=FIELD) from None
    except (OSError, ValueError) as error:
        raise JobError(
            Reason.MODEL_NOT_FOUND, f"the model's config.json cannot be read: {error}", field=FIELD
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise JobError(Reason.UNSUPPORTED_MODEL, "the model's config.json names no model_type", field=FIELD)
    return config


def architecture(config: dict[str, Any], head: HeadPolicy) -> Architecture:
    """The model's class with this head.

    Raises JobError when transformers has none, or only by code from the repository.
    """
    kind = config["model_type"]
    module = auto.module_of(kind)
    source = auto.source(module)
    if source is None:
        if config.get("auto_map"):
            message = f"model type {kind!r} needs code from the model's repository, which is never run"
            raise JobError(
                Reason.UNSAFE_MODEL, message, field=FIELD, hint="Choose a model that transformers supports itself."
            )
        raise _unsupported(f"transformers knows no model type {kind!r}", head)
    if "quantization_config" in config:
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            "the model's weights are quantised",
            field=FIELD,
            hint="Choose the model in 16 or 32 bits.",
        )
    if refusal := head.refusal(config, source):
        raise _unsupported(refusal, head)
    usual, classes = auto.class_of(kind, head.auto_class), re.findall(r"^class (\w+)", source, re.MULTILINE)
    found = [name for name in classes if (name == usual if head.pooled else head.class_name.fullmatch(name))]
    if not found:
        raise _unsupported(f"model type {kind!r} does not support {head.serves}", head)
    named = [c for c in (*(config.get("architectures") or ()), usual) if c in found]
    return Architecture(module, (named or found)[0], _positions(config, source))


def _unsupported(message: str, head: HeadPolicy) -> JobError:
    return JobError(Reason.UNSUPPORTED_MODEL, message, field=FIELD, hint=fitting(head))


def fitting(head: HeadPolicy) -> str | None:
    """A hint that names the families that fit; None where nothing is known of them."""
    families = TASKS[head.serves].families if head.serves in TASKS else ()
    return f"Choose a model of a family that fits: {', '.join(f.name for f in families)}." if families else None


def source_of(found: Architecture) -> str:
    """The source of its code."""
    return auto.source(found.module) or ""


def _positions(config: dict[str, Any], source: str) -> int | None:
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(config.get(key), int) and config[key] > 0:
            pad = config.get("pad_token_id")
            offset = (pad if isinstance(pad, int) else 0) + 1 if "create_position_ids_from_input_ids" in source else 0
            return config[key] - offset
    return None


def model_max_length(found: Architecture, tokenizer_max: int | None) -> int:
    """The most tokens of a row: the model's positions and the tokenizer's limit, whichever is less."""
    limits = [n for n in (found.max_positions, tokenizer_max) if n]
    return min(limits) if limits else 1_048_576


def width(config: dict[str, Any]) -> int | None:
    """How wide the model's layers are, of stages the widest; None where its config calls that otherwise."""
    for key in ("hidden_size", "dim", "n_embd", "d_model", "hidden_sizes"):
        found = config.get(key) or config.get("text_config", {}).get(key)
        widest = max(found, default=0) if isinstance(found, list) else found
        if isinstance(widest, int) and widest > 0:
            return widest
    return None
