"""An adapter that was saved beside an unchanged base: what it says of it, and how it is put on it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.methods.peft_adapter import ties_allowed
from finetune_trainer.methods.prompts import aligned

CONFIG = "adapter_config.json"


def base_of(folder: Path) -> tuple[str, str | None]:
    """What the adapter is to be loaded onto, a path or the hub's name, and its revision. Raises JobError."""
    try:
        said = json.loads((folder / CONFIG).read_text())
        return str(said["base_model_name_or_path"]), said.get("revision")
    except (OSError, ValueError, KeyError) as error:
        raise JobError(Reason.MODEL_NOT_FOUND, f"{CONFIG} cannot be read: {error}") from None


def put_on(model: Any, folder: Path) -> Any:
    """The base with the adapter on it, which answers rows that are padded together as each by itself.

    Raises JobError where the two do not fit.
    """
    from peft import PeftModel

    try:
        with ties_allowed():
            return aligned(PeftModel.from_pretrained(model, str(folder)))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        message = f"the adapter does not fit its base: {' '.join(str(error).split())}"
        hint = "Its base must be the one that it was made on."
        raise JobError(Reason.UNSUPPORTED_MODEL, message[:900], hint=hint) from None
