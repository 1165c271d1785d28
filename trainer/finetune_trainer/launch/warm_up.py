"""What every worker of a node needs, fetched and imported once before they are forked."""

from __future__ import annotations

import importlib
from pathlib import Path

import finetune_trainer.train.worker  # noqa: F401  # the workers find it imported
from finetune_api.run import RunConfig
from finetune_trainer.methods import method_for
from finetune_trainer.model import deferred_imports
from finetune_trainer.model.facts import architecture, read_config
from finetune_trainer.model.fetch import fetch_model
from finetune_trainer.storage import location
from finetune_trainer.stream import load_profile
from finetune_trainer.tasks.registry import task_of


def warm_up(config: RunConfig) -> Path:
    """Fetch the model and import its classes; the model's folder."""
    _, profile = load_profile(location(config.output.uri, config.storage))
    folder = fetch_model(config, revision=profile.model_revision)
    head = task_of(config).head
    modules = [architecture(read_config(folder), head).module, *method_for(config.method).packages]
    on_cpu = config.world.device == "cpu" or not Path("/proc/driver/nvidia").exists()
    deferred_imports.import_modules(modules, deferred=on_cpu)
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    return folder
