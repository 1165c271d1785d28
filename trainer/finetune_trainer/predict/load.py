"""Load what a job made: the merged or whole model by itself, an adapter on its base."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import torch

from finetune_api.base import parse
from finetune_api.exits import JobError, Reason
from finetune_api.predict import PredictConfig
from finetune_api.run import RunConfig
from finetune_trainer.methods.registry import adapter_files, packages
from finetune_trainer.methods.saved import CONFIG, base_of, put_on
from finetune_trainer.model import deferred_imports
from finetune_trainer.model.facts import architecture, read_config
from finetune_trainer.model.fetch import fetch_model
from finetune_trainer.model.files import SMALL
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.load import load_model, reload
from finetune_trainer.model.pooled import NAME as HEAD
from finetune_trainer.model.pooled import PooledModel, with_head_of
from finetune_trainer.model.pooling import Pooled
from finetune_trainer.predict.described import Described
from finetune_trainer.storage import Location, location

MERGED = "merged"
GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in eval mode, and what encodes its rows."""

    model: Any
    processor: Any


def run_config(config: PredictConfig, task: str, model: str, revision: str | None = None) -> RunConfig:
    """A job's configuration, as far as fetching a model and listing rows ask for it."""
    plain = {
        "job": {"name": "local/predict", "id": "predict"},
        "task": task,
        "model": {"uri": model} | ({"revision": revision} if revision and model.startswith("hf://") else {}),
        "data": {"train": {"uri": config.rows}, "format": config.format, "maxBadRows": config.max_bad_rows},
        "method": {},
        "training": {},
        "evaluation": {},
        "checkpoints": {},
        "output": {"uri": config.output},
        "world": {},
        "storage": config.storage.to_json(),
        "hub": config.hub.to_json(),
        "scratch": config.scratch,
    }
    return parse(RunConfig, plain, local=True)


def load(config: PredictConfig, out: Location, said: Described, device: torch.device) -> Loaded:
    """The model on the device. Raises JobError."""
    name, head = said.task.info.name, said.task.head
    merged = any(file.startswith(f"{MERGED}/") for file in said.files)
    if CONFIG in said.files and not merged:
        return _adapted(config, out, said, device)
    uri = f"{config.output.rstrip('/')}/{MERGED}" if merged else config.output
    folder = fetch_model(run_config(config, name, uri))
    if said.head is not None:
        return Loaded(_pooled(folder, out, head, said.head, device), said.task.processor.load(folder, None))
    return Loaded(reload(folder, _class_of(folder, head, device), device), said.task.processor.load(folder, None))


def _pooled(
    folder: Path, out: Location, head: HeadPolicy, described: Mapping[str, Any], device: torch.device
) -> PooledModel:
    """The trunk with its head, which is brought too."""
    if not (folder / HEAD).exists():
        if (weights := out.find(HEAD)) is None:
            hint = "Fetch the output once more, or run the job again."
            raise JobError(Reason.MODEL_NOT_FOUND, f"{out.uri(HEAD)} is missing, the model's head", hint=hint)
        (folder / HEAD).write_bytes(weights)
    cls = _class_of(folder, head.on_pooled(Pooled()), device)
    return with_head_of(reload(folder, cls, device, bare=True), folder, described)


def _adapted(config: PredictConfig, out: Location, said: Described, device: torch.device) -> Loaded:
    folder = _bring(config, out, said.files)
    processor = said.task.processor.load(folder, None)
    base, revision = base_of(folder)
    uri = base if "://" in base else f"file://{quote(base)}" if base.startswith("/") else f"hf://{base}"
    try:
        on = fetch_model(run_config(config, said.task.info.name, uri, revision))
    except JobError as error:
        hint = f"Bring its base back to where adapter_config.json says it is, {base}, or name another there."
        raise JobError(error.reason, f"the adapter's base: {error.message}", hint=hint) from None
    _class_of(on, said.task.head, device)
    deferred_imports.import_modules(packages(), deferred=device.type == "cpu")
    model = load_model(on, said.task.head, labels=said.facts.labels or None, seed=0, pad_id=processor.pad_id)
    if (folder / GENERATION).exists() and model.can_generate():
        model.generation_config = type(model.generation_config).from_pretrained(str(folder), local_files_only=True)
    return Loaded(put_on(model, folder).to(device).eval(), processor)


def _class_of(folder: Path, head: HeadPolicy, device: torch.device) -> Any:
    """The model's class, imported as leanly as may be."""
    found = architecture(read_config(folder), head)
    deferred_imports.import_modules([found.module], deferred=device.type == "cpu")
    return getattr(importlib.import_module(found.module), found.class_name)


def _bring(config: PredictConfig, out: Location, files: Iterable[str]) -> Path:
    """The folder with the adapter and the small files beside it; one of this machine is used in place."""
    if config.output.startswith("file://"):
        return Path(unquote(urlsplit(config.output).path))
    folder = Path(config.scratch) / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if name in (CONFIG, *adapter_files()) or any(fnmatch.fnmatch(name, pattern) for pattern in SMALL):
            (folder / name).write_bytes(out.get(name))
    return folder


def at(config: PredictConfig) -> Location:
    """Where the output lies."""
    return location(config.output, config.storage)
