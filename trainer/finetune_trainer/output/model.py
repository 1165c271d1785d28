"""Write the tuned model, whole or as an adapter: safetensors only, sharded when large, without a path of this machine.

All that is not tuned is the base's own (`base_files`), and what was written is loaded again and compared before it can
become the result (`verify`). The model that was tuned is used up: its weights are rounded, merged and let go, so that
one copy is in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.methods import AdapterFormat
from finetune_trainer.model.load import FORMATS, reload
from finetune_trainer.model.pooled import PooledModel, save_head, with_head_of
from finetune_trainer.model.units import folded_weights
from finetune_trainer.model.weights import headers
from finetune_trainer.output.base_files import copy_processor, write_config, write_generation_config
from finetune_trainer.output.verify import Probe, verify

SHARD = "4GB"


def write_model(
    folder: Path,
    model: Any,
    source: Path,
    probe: Probe,
    *,
    adapter: AdapterFormat | None = None,
    base: str,
    revision: str | None = None,
    merge: bool = False,
    stops: Iterable[int] = (),
) -> None:
    """Write the model (with `adapter`, that alone) and tokenizer into `folder`; with `merge` also the whole model into
    merged/.

    `source` is the base model's folder, `base` what an adapter shall be loaded onto, `stops` the tokens that were
    learned as the end of a turn. Uses the model up. Raises JobError when what was written is not what was tuned.
    """
    stops = tuple(stops)
    if adapter is None:
        write = _write_pooled if isinstance(model, PooledModel) else _write_whole
        write(folder, model, source, probe, stops)
        return
    adapter.save(model, folder, base, revision)
    copy_processor(source, folder)
    if model.can_generate():
        write_generation_config(source, folder, stops)
    if merge and adapter.merge is not None:
        adapted = probe.logits(model)
        merged = adapter.merge(model)
        verify(adapted, probe.logits(merged), "merged")
        _write_whole(folder / "merged", merged, source, probe, stops)


def _write_whole(folder: Path, model: Any, source: Path, probe: Probe, stops: tuple[int, ...]) -> None:
    _round(model, source)
    tuned = probe.logits(model)
    if model.can_generate():
        # The base's own is copied below; some do not pass the checks of saving.
        model.generation_config = type(model.generation_config)()
    model.save_pretrained(str(folder), max_shard_size=SHARD)
    write_config(source, folder, model)
    copy_processor(source, folder)
    if model.can_generate():
        write_generation_config(source, folder, stops)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)
    verify(tuned, probe.logits(reload(folder, type(model), probe.device)), "written")


def _write_pooled(folder: Path, model: PooledModel, source: Path, probe: Probe, stops: tuple[int, ...]) -> None:
    """The trunk as any bare model, the head in a file of its own."""
    trunk, described = model.trunk, model.description
    _round(trunk, source)
    tuned = probe.logits(model)
    trunk.save_pretrained(str(folder), max_shard_size=SHARD)
    write_config(source, folder, trunk)
    copy_processor(source, folder)
    save_head(model, folder)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)
    verify(
        tuned,
        probe.logits(with_head_of(reload(folder, type(trunk), probe.device, bare=True), folder, described)),
        "written",
    )


def _round(model: Any, source: Path) -> None:
    """Give every weight the number format that it has in the base's files; new ones the format of most of them, but for
    those that hold the data's units.
    """
    stored = {name: FORMATS.get(s.dtype) for name, s in headers(source).items()}
    formats = {name: kind for name, kind in stored.items() if kind is not None and kind.is_floating_point}
    usual = next((kind for kind, _ in Counter(formats.values()).most_common(1)), torch.float32)
    prefix, exact = f"{model.base_model_prefix}.", folded_weights(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and id(tensor) not in exact:
            same = (name, name.removeprefix(prefix), prefix + name)
            tensor.data = tensor.data.to(next((formats[n] for n in same if n in formats), usual))
