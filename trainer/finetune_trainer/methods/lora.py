"""Low-rank adapters by peft on every linear layer but a new head, which is trained whole.

Only the adapters and such a head are trained, checkpointed and written; the base stays as it was. Adapters start at
zero effect, from spec.training.seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.method import METHODS
from finetune_api.status import Finding
from finetune_api.tuning import Lora
from finetune_trainer.methods.base import Identity, TuningMethod
from finetune_trainer.methods.modules import convolutions, head_modules, linear_layers
from finetune_trainer.methods.peft_adapter import (
    MERGING,
    fits,
    last_part,
    ties_allowed,
    transposed,
    untrained_experts,
    whole_modules,
)
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.method.lora.targetModules"
WHOLE = "spec.method.lora.modulesToSave"
RATIO = "spec.method.lora.rateRatio"
SECOND = re.compile(r"\.lora_(embedding_)?B\b")
"""Matrices B, which start at zero."""


def apply(model: Any, settings: Lora, head: HeadPolicy, seed: int) -> Any:
    """The peft model. Raises JobError when targetModules match no linear layer, or modulesToSave no module."""
    import torch
    from peft import LoraConfig, get_peft_model

    heads = head_modules(model, head)
    targets = target_names(model, settings, heads)
    targeted = [module for name, module in linear_layers(model).items() if fits(name, targets)]
    adapters = LoraConfig(
        task_type=head.peft_task or None,
        r=settings.rank,
        lora_alpha=alpha(settings),
        use_rslora=bool(settings.rs_lora),
        use_dora=bool(settings.dora),
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=transposed(targeted),
        modules_to_save=whole_modules(model, head, heads, settings.modules_to_save or (), WHOLE),
    )
    torch.manual_seed(seed)
    with ties_allowed():
        adapted = get_peft_model(model, adapters)
    for name, parameter in adapted.named_parameters():
        if settings.rate_ratio and SECOND.search(name):
            parameter.rate_share = settings.rate_ratio
    return adapted


def alpha(settings: Lora) -> float:
    """As given, or by the rank."""
    if settings.alpha is not None:
        return settings.alpha
    return 8 if settings.rs_lora else 2 * settings.rank


def target_names(model: Any, settings: Lora, heads: Mapping[str, Any]) -> list[str]:
    """The last parts of the linear layers' names, heads left out; of convolutions where a model has nothing else.

    Raises JobError when targetModules match no linear layer.
    """
    in_heads = {id(module) for head in heads.values() for module in head.modules()}
    layers = linear_layers(model)
    inner = [name for name, module in layers.items() if id(module) not in in_heads] or [*convolutions(model)]
    usual = sorted({last_part(name) for name in inner})
    if settings.target_modules is None:
        if not usual:
            raise JobError(
                Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no linear layers outside its head", field=FIELD
            )
        return usual
    possible = {*layers, *convolutions(model), *_embeddings(model)}
    for target in settings.target_modules:
        if not any(fits(name, [target]) for name in possible):
            message = f"no linear layer is named {target!r}; the model has {', '.join(usual[:12])}"
            raise JobError(Reason.INVALID_CONFIG, message, field=FIELD, hint="Name linear layers of the model.")
    if both := sorted(set(settings.target_modules) & set(settings.modules_to_save or ())):
        message = f"{both[0]!r} is named in targetModules too: it is adapted or trained whole, not both"
        raise JobError(Reason.INVALID_CONFIG, message, field=WHOLE, hint="Remove it from one of them.")
    return list(settings.target_modules)


def _embeddings(model: Any) -> set[str]:
    """Names of the embeddings, which peft adapts too."""
    from torch.nn import Embedding

    return {name for name, module in model.named_modules() if isinstance(module, Embedding)}


def check(model: Any, settings: Lora, head: HeadPolicy) -> list[Finding]:
    """Raises JobError as `apply` does; finds a mixture's experts, which are no linear layers and so stay untrained."""
    heads = head_modules(model, head)
    target_names(model, settings, heads)
    whole_modules(model, head, heads, settings.modules_to_save or (), WHOLE)
    return untrained_experts(model)


METHOD = TuningMethod(
    METHODS["lora"],
    apply,
    check,
    phrase="a LoRA adapter",
    title="LoRA adapter",
    defaults=Lora(),
    identity={
        "loraRank": Identity("spec.method.lora.rank", lambda settings: settings.rank),
        "loraAlpha": Identity("spec.method.lora.alpha", lambda settings: settings.alpha),
        "loraTargets": Identity(FIELD, lambda settings: list(settings.target_modules or ())),
        "loraRs": Identity("spec.method.lora.rsLora", lambda settings: bool(settings.rs_lora)),
        "loraDora": Identity("spec.method.lora.dora", lambda settings: bool(settings.dora)),
        "loraRateRatio": Identity(RATIO, lambda settings: settings.rate_ratio or 1.0),
        "loraWhole": Identity(WHOLE, lambda settings: list(settings.modules_to_save or ())),
    },
    packages=("peft",),
    adapter=MERGING,
)
