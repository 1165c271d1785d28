"""Write the tuned model for transformers and peft: safetensors only, sharded when large, no path of this machine in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHARD = "4GB"


def write_model(
    folder: Path, model: Any, tokenizer: Any, *, base: str, revision: str | None = None, merge: bool = False
) -> None:
    """Write the model (peft: its adapter) and tokenizer into `folder`; with `merge` also the whole model into merged/.

    `base` is the base model as its user knows it. Merging changes `model` in place: it comes last.
    """
    adapter = hasattr(model, "peft_config")
    if adapter:
        # "auto" would ask the hub for the base model's vocabulary; embeddings that are trained are saved anyway.
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        _edit(folder / "adapter_config.json", base_model_name_or_path=base, revision=revision)
        (folder / "README.md").unlink(missing_ok=True)  # peft's own; ours takes its place
    else:
        _write_whole(folder, model)
    tokenizer.save_pretrained(str(folder))
    if merge:
        assert adapter, "merge is for adapters"
        merged = folder / "merged"
        _write_whole(merged, model.merge_and_unload())
        tokenizer.save_pretrained(str(merged))


def _write_whole(folder: Path, model: Any) -> None:
    model.save_pretrained(str(folder), max_shard_size=SHARD)
    config = json.loads((folder / "config.json").read_text())
    if "_name_or_path" in config:
        del config["_name_or_path"]  # a folder of the machine that trained
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}, indent=2) + "\n")
