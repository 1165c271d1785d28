"""Learned scales by peft ((IA)³, Liu et al. 2022): one number for each key, value and inner feature of the feed-forward
layers, and a new head, which is trained whole.

Scales start at one, that is without effect. A layer that reads more features than it writes is the last of a
feed-forward block: what it reads is scaled; of all others what they write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.method import METHODS
from finetune_api.status import Finding
from finetune_api.tuning import Ia3
from finetune_trainer.methods.base import Identity, TuningMethod, instead
from finetune_trainer.methods.modules import head_modules, linear_layers, near
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

FIELD = "spec.method.ia3.targetModules"
WHOLE = "spec.method.ia3.modulesToSave"

KEYS_AND_VALUES = re.compile(r"(k|v|key|value|kv|qkv|wqkv|query_key_value|c_attn)(_proj|_lin|_proj_with_mqa)?", re.I)
"""The usual names of the layers that make keys and values, some of them with the queries."""
ATTENTION = re.compile(r"att", re.I)


def apply(model: Any, settings: Ia3, head: HeadPolicy, seed: int) -> Any:
    """The peft model. Raises JobError for names that fit no layer."""
    from peft import IA3Config, get_peft_model

    heads = head_modules(model, head)
    targets = target_layers(model, settings, head, heads)
    scales = IA3Config(
        task_type=head.peft_task or None,
        target_modules=list(targets),
        feedforward_modules=[name for name, layer in targets.items() if narrows(name, layer)],
        fan_in_fan_out=transposed(targets.values()),
        modules_to_save=whole_modules(model, head, heads, settings.modules_to_save or (), WHOLE),
    )
    with ties_allowed():
        scaled = get_peft_model(model, scales)
    for name, parameter in scaled.named_parameters():
        if ".ia3_l." in name:
            parameter.decays = False  # towards zero, where what it scales would vanish
    return scaled


def target_layers(model: Any, settings: Ia3, head: HeadPolicy, heads: Mapping[str, Any]) -> dict[str, Any]:
    """The layers by their whole names: those that the user names, or keys, values and ends of feed-forward blocks.

    Raises JobError where these are none.
    """
    in_heads = {id(module) for head in heads.values() for module in head.modules()}
    layers = {name: layer for name, layer in linear_layers(model).items() if id(layer) not in in_heads}
    if settings.target_modules is None:
        found = {
            name: layer
            for name, layer in layers.items()
            if KEYS_AND_VALUES.fullmatch(last_part(name)) or (re.search(r"\.\d+\.", name) and narrows(name, layer))
        }
        if not any(KEYS_AND_VALUES.fullmatch(last_part(name)) for name in found):
            hint = f"Name the layers that make them. {instead(model, head)}"
            message = f"no linear layer of {type(model).__name__} has a usual name for keys or values"
            raise JobError(Reason.INVALID_CONFIG, message, field=FIELD, hint=hint)
        return found
    for target in settings.target_modules:
        if not any(fits(name, [target]) for name in layers):
            message = f"no linear layer outside the head is named {target!r}"
            raise JobError(Reason.INVALID_CONFIG, message, field=FIELD, hint=near(target, layers))
    return {name: layer for name, layer in layers.items() if fits(name, settings.target_modules)}


def narrows(name: str, layer: Any) -> bool:
    """Whether it reads more features than it writes, outside the attention."""
    reads, writes = layer.weight.shape if transposed([layer]) else reversed(layer.weight.shape)
    return bool(reads > writes) and not ATTENTION.search(re.split(r"\.\d+\.", name)[-1])


def check(model: Any, settings: Ia3, head: HeadPolicy) -> list[Finding]:
    """Raises JobError as `apply` does; finds a mixture's experts, which stay as they are."""
    heads = head_modules(model, head)
    target_layers(model, settings, head, heads)
    whole_modules(model, head, heads, settings.modules_to_save or (), WHOLE)
    return untrained_experts(model)


METHOD = TuningMethod(
    METHODS["ia3"],
    apply,
    check,
    phrase="an (IA)³ adapter",
    title="(IA)³ adapter",
    defaults=Ia3(),
    identity={
        "ia3Targets": Identity(FIELD, lambda settings: list(settings.target_modules or ())),
        "ia3Whole": Identity(WHOLE, lambda settings: list(settings.modules_to_save or ())),
    },
    packages=("peft",),
    adapter=MERGING,
)
