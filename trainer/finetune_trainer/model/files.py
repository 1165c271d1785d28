"""Which files a model is: safetensors, configuration, tokenizer and card (for its licence); no pickle, no code."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from pathlib import Path

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.facts import FIELD
from finetune_trainer.model.weights import weight_files

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "vocab.bpe",
    "bpe.codes",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
PROCESSOR = (*TOKENIZER, "preprocessor_config.json")
"""What turns raw inputs into what the model takes."""
SMALL = (*PROCESSOR, "config.json", "generation_config.json", "README.md")
INDEX = "model.safetensors.index.json"
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.gguf", "*.onnx")


def wanted(names: Iterable[str], where: str, weights: bool) -> list[str]:
    """The files to bring, sorted. Raises JobError when the folder is no model, or one in an unsafe format only."""
    names = set(names)
    if "config.json" not in names:
        raise JobError(Reason.MODEL_NOT_FOUND, f"no config.json at {where}", field=FIELD)
    tensors = set(weight_files(names))
    if not tensors:
        unsafe = sorted(n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in UNSAFE))
        if unsafe:
            raise JobError(
                Reason.UNSAFE_MODEL, f"{where} has its weights as {unsafe[0]} only, not as safetensors", field=FIELD
            )
        raise JobError(Reason.MODEL_NOT_FOUND, f"no model.safetensors at {where}", field=FIELD)
    small = {n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in SMALL)}
    if not weights:
        return sorted(small)
    return sorted(small | tensors | ({INDEX} & names if "model.safetensors" not in tensors else set()))


def check_index(folder: Path) -> None:
    """Every shard that the index names is a plain file name (it is joined to the folder by transformers)."""
    index = folder / INDEX
    if index.exists():
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise JobError(Reason.MODEL_NOT_FOUND, f"{INDEX} is not an index of safetensors", field=FIELD) from None
        for shard in shards:
            if not re.fullmatch(r"[\w.-]+\.safetensors", shard):
                raise JobError(
                    Reason.UNSAFE_MODEL,
                    f"{INDEX} names {shard!r}, which is not a safetensors file of the same folder",
                    field=FIELD,
                )
