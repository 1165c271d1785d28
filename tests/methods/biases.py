"""A method that stands here alone: only biases are trained, and written beside the base. One row and one value, as any
method's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from finetune_api.exits import JobError, Reason
from finetune_api.method import MethodInfo
from finetune_trainer.methods.base import AdapterFormat, Identity, TuningMethod
from finetune_trainer.methods.modules import head_modules
from finetune_trainer.model.head import HeadPolicy

INFO = MethodInfo("biases", "biases", 5.0, 5.0, merges=True)
FIELD = "spec.method.biases.layers"
FILE = "biases.safetensors"


@dataclass(frozen=True)
class Biases:
    """Settings: which layers' biases, "all" or "attention"."""

    layers: str = "all"


def apply(model: Any, settings: Biases, head: HeadPolicy, seed: int) -> Any:
    """Biases, and all of a new head."""
    part = "attention." if settings.layers == "attention" else ""
    chosen = {name for name, _ in model.named_parameters() if name.endswith(".bias") and part in name}
    if not chosen:
        raise JobError(Reason.INVALID_CONFIG, "the model has no such biases", field=FIELD)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    if head.is_new:
        for module in head_modules(model, head).values():
            module.requires_grad_(True)
    return model


def check(model: Any, settings: Biases, head: HeadPolicy) -> tuple[()]:
    apply(model, settings, head, 0)
    return ()


def save(model: Any, folder: Path, base: str, revision: str | None) -> None:
    save_file({n: p.detach() for n, p in model.named_parameters() if p.requires_grad}, folder / FILE)


def with_biases(model: Any, folder: str) -> Any:
    """What the card tells a reader to call."""
    left_out = model.load_state_dict(load_file(Path(folder) / FILE), strict=False)
    assert not left_out.unexpected_keys
    return model


METHOD = TuningMethod(
    INFO,
    apply,
    check,
    phrase="biases only",
    title="biases",
    defaults=Biases(),
    identity={"biasLayers": Identity(FIELD, lambda settings: settings.layers)},
    packages=("safetensors",),
    adapter=AdapterFormat(
        library="biases",
        weights=FILE,
        save=save,
        merge=lambda model: model,
        usage_import="from methods.biases import with_biases",
        usage_load="with_biases({base}, folder)",
    ),
)
