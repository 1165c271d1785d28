"""Learned keys and values, which stand before each layer's own (Li & Liang 2021, Liu et al. 2022), and a new head."""

from __future__ import annotations

import inspect
from typing import Any

from finetune_api.method import METHODS
from finetune_api.tuning import PrefixTuning
from finetune_trainer.methods.base import Identity, TuningMethod
from finetune_trainer.methods.modules import head_modules
from finetune_trainer.methods.peft_adapter import whole_modules
from finetune_trainer.methods.prompts import ADAPTER, check_task, refuse_unless, with_virtual_tokens
from finetune_trainer.model.head import HeadPolicy

TOKENS = "spec.method.prefixTuning.virtualTokens"

TASKS = {"CAUSAL_LM": "language models", "SEQ_CLS": "classifiers of texts", "TOKEN_CLS": "classifiers of tokens"}


def apply(model: Any, settings: PrefixTuning, head: HeadPolicy, seed: int) -> Any:
    """The peft model."""
    from peft import PrefixTuningConfig

    check(model, settings, head)
    config = PrefixTuningConfig(
        task_type=head.peft_task,
        num_virtual_tokens=settings.virtual_tokens,
        modules_to_save=whole_modules(model, head, head_modules(model, head)),
    )
    return with_virtual_tokens(model, head, config, seed)


def check(model: Any, settings: PrefixTuning, head: HeadPolicy) -> tuple[()]:
    """Raises JobError where the model takes no keys and values, or peft does not know where its head is.

    peft passes by the forward of a classifier that takes none itself: it calls the base, and then a head that must be
    one linear layer, behind a pooler where texts are classified.
    """
    from torch.nn import Linear

    check_task(model, head, TASKS)
    refuse_unless(not model.config.is_encoder_decoder, model, head, "it has an encoder and a decoder")
    if _takes_past(model):
        return ()
    base = getattr(model, model.base_model_prefix)
    refuse_unless(_takes_past(base), model, head, "its layers take no keys and values from outside")
    pooled = head.peft_task != "SEQ_CLS" or getattr(base, "pooler", None) is not None
    plain = isinstance(getattr(model, "classifier", None), Linear)
    refuse_unless(pooled and plain, model, head, "peft cannot call its head behind a prefix")
    return ()


def _takes_past(module: Any) -> bool:
    return "past_key_values" in inspect.signature(module.forward).parameters


METHOD = TuningMethod(
    METHODS["prefix-tuning"],
    apply,
    check,
    phrase="a prefix of keys and values",
    title="prefix tuning",
    defaults=PrefixTuning(),
    identity={"prefixTokens": Identity(TOKENS, lambda settings: settings.virtual_tokens)},
    packages=("peft",),
    adapter=ADAPTER,
    extra_positions=lambda settings: settings.virtual_tokens,
)
