"""Write the tuned model for transformers and peft: safetensors only, sharded when large, no path of the trainer's
machine in it.

All that is not tuned is the base's own (`inherited`), and what was written is loaded again and judged before it can
become
the result (`judge`). The model that was tuned is used up by it: its weights are rounded, merged and let go, so that one
copy
is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune_trainer.model.load import FORMATS, reload
from finetune_trainer.model.weights import headers
from finetune_trainer.output.inherited import copy_tokenizer, write_config, write_generation_config
from finetune_trainer.output.judge import Judge

SHARD = "4GB"


def write_model(
    folder: Path,
    model: Any,
    source: Path,
    judge: Judge,
    *,
    base: str,
    revision: str | None = None,
    merge: bool = False,
    stops: Iterable[int] = (),
) -> None:
    """Write the model (peft: its adapter) and tokenizer into `folder`; with `merge` also the whole model into merged/.

    `source` is the base model's folder, `base` what peft shall load it by, `stops` the tokens that were learned as the
    end
    of a turn. Uses the model up. Raises JobError when what was written is not what was tuned.
    """
    stops = tuple(stops)
    if not hasattr(model, "peft_config"):
        _write_whole(folder, model, source, judge, stops)
        return
    # "auto" would ask the hub for the base model's vocabulary; embeddings that are trained are saved anyway.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    _edit(folder / "adapter_config.json", base_model_name_or_path=base, revision=revision)
    (folder / "README.md").unlink(missing_ok=True)  # peft's own; ours takes its place
    copy_tokenizer(source, folder)
    if model.can_generate():
        write_generation_config(source, folder, stops)
    if merge:
        adapted = judge.logits(model)
        untie(model)
        merged = model.merge_and_unload()
        judge.compare(adapted, judge.logits(merged), "merged")
        _write_whole(folder / "merged", merged, source, judge, stops)


def untie(model: Any) -> None:
    """Give the output layer weights of its own if it shares them with the embeddings and an adapter lies on one of the
    two:
    merged, they differ."""
    inner = model.get_base_model()
    first, last = inner.get_input_embeddings(), inner.get_output_embeddings()
    below, above = _below(first), _below(last)
    if below is None or above is None or (below is first and above is last):
        return
    if below.weight is above.weight:
        above.weight = nn.Parameter(above.weight.detach().clone(), requires_grad=False)
        inner.config.tie_word_embeddings = False


def _below(module: Any) -> Any:
    """The layer itself under an adapter's."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _write_whole(folder: Path, model: Any, source: Path, judge: Judge, stops: tuple[int, ...]) -> None:
    _round(model, source)
    tuned = judge.logits(model)
    if model.can_generate():
        model.generation_config = type(
            model.generation_config
        )()  # the base's is copied; some do not pass saving's checks
    model.save_pretrained(str(folder), max_shard_size=SHARD)
    write_config(source, folder, model)
    copy_tokenizer(source, folder)
    if model.can_generate():
        write_generation_config(source, folder, stops)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)
    judge.compare(tuned, judge.logits(reload(folder, type(model), judge.device)), "written")


def _round(model: Any, source: Path) -> None:
    """Give every weight the number format that it has in the base's files; new ones the format that most of them
    have.
    """
    stored = {name: FORMATS.get(s.dtype) for name, s in headers(source).items()}
    formats = {name: kind for name, kind in stored.items() if kind is not None and kind.is_floating_point}
    all_formats = list(formats.values())
    usual = max(dict.fromkeys(all_formats), key=all_formats.count, default=torch.float32)
    prefix = f"{model.base_model_prefix}."
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            same = (name, name.removeprefix(prefix), prefix + name)
            tensor.data = tensor.data.to(next((formats[n] for n in same if n in formats), usual))


def _edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}, indent=2) + "\n")
