"""The files that an export takes over from its base: tokenizer or image processor byte for byte, configs but for what
tuning changes.

Whatever could read the base can then read the export.

transformers would write these anew in the words of its own version: tokenizers under a class that older versions and
converters do not know, without sentencepiece's own file, and cut to the run's longest row; configs with the trainer's
number format and cache switch, and with fields that older versions take no notice of.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune_trainer.model.files import PROCESSOR

LEARNED = ("id2label", "label2id", "problem_type")
"""Fields of the config that a new head sets."""
GENERATION = "generation_config.json"


def copy_processor(source: Path, folder: Path) -> None:
    """The base's files of tokenizer or image processor, byte for byte."""
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in PROCESSOR):
            shutil.copyfile(path, folder / path.name)


def write_config(source: Path, folder: Path, model: Any) -> None:
    """The base's config.json with what tuning changed, in place of the one that transformers wrote."""
    base = json.loads((source / "config.json").read_text())
    written = json.loads((folder / "config.json").read_text())
    if base.get("model_type") != written.get("model_type"):  # the text part of a model of several
        base = {**written, **{name: base[name] for name in ("dtype", "torch_dtype") if name in base}}
        base.pop("use_cache", None)
    base["architectures"] = [type(model).__name__]
    if not model.can_generate():  # the head is the task's own
        base |= {name: written[name] for name in LEARNED if name in written}
        base |= {name: len(model.config.id2label) for name in ("num_labels", "_num_labels") if name in base}
    if written.get("pad_token_id") != base.get("pad_token_id") and written.get("pad_token_id") is not None:
        base["pad_token_id"] = written["pad_token_id"]
    if base.get("tie_word_embeddings", True) and not getattr(model.config, "tie_word_embeddings", True):
        base["tie_word_embeddings"] = False  # merged adapters made them two
    for name in ("_name_or_path", "auto_map"):  # a folder of somebody's machine; code that does not come along
        base.pop(name, None)
    _write(folder / "config.json", base)


def write_generation_config(source: Path, folder: Path, stops: Iterable[int]) -> None:
    """The base's generation_config.json, with `stops`, the tokens learned as the end of a turn, before its own ends."""
    (folder / GENERATION).unlink(missing_ok=True)
    config = json.loads((source / "config.json").read_text())
    there = (source / GENERATION).exists()
    said = json.loads((source / GENERATION).read_text()) if there else {}
    known = said["eos_token_id"] if said.get("eos_token_id") is not None else config.get("eos_token_id")
    ends = known if isinstance(known, list) else [] if known is None else [known]
    new = [stop for stop in dict.fromkeys(stops) if stop not in ends]
    if not new:
        if there:
            shutil.copyfile(source / GENERATION, folder / GENERATION)
        return
    if not there:  # once this file is there, nothing is taken from config.json any more
        names = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
        said = {name: config[name] for name in names if config.get(name) is not None}
    _write(folder / GENERATION, {**said, "eos_token_id": [*new, *ends] if ends or len(new) > 1 else new[0]})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
