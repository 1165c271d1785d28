"""How a trunk's outputs become one vector a row, and what stands on it: settings, and what a model leaves open of them.

Plain values without torch. `pooled` has the model that is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.tuning import POOLED_HEADS, POOLINGS
from finetune_trainer.model import auto

AUTO, MEAN, CLS, LAST = POOLINGS
LINEAR, MLP = POOLED_HEADS
OWN = "pooled"
"""What the family itself gives as the vector of an image."""
WITH_OWN = (*POOLINGS, OWN)


@dataclass(frozen=True, slots=True)
class Pooled:
    """A head of our own on pooled outputs, as a method asks for it."""

    pooling: str = AUTO
    """`auto`, `mean` over a row's tokens or an image's positions, `cls`: the first, `last`: the last real token, or
    `pooled`."""
    head: str = LINEAR
    """`linear`, or `mlp`: one hidden layer with GELU and, in training, dropout."""
    hidden: int | None = None
    """The hidden layer's width; None: that of the vectors."""
    field: str = "spec.method"
    """Where the user wrote them, for messages."""


def pooling_of(wanted: Pooled, config: Any, main_input: str, *, class_token: bool) -> str:
    """Which pooling a trunk has: `wanted`, if it is not auto. `config`: transformers'; `main_input`: what the model
    reads; `class_token`: whether it has one for images.

    Raises JobError where the trunk has nothing to pool so.
    """
    images = main_input == "pixel_values"
    causal = not images and is_causal(config)
    if wanted.pooling == AUTO:
        return OWN if images else LAST if causal else MEAN
    why = None
    if images and wanted.pooling == LAST:
        why = "an image has no last token"
    elif images and wanted.pooling == CLS and not class_token:
        why = "it has no class token"
    elif causal and wanted.pooling == CLS:
        why = "a decoder's first token sees none of the others"
    if why:
        message = f"pooling {wanted.pooling} does not fit model type {config.model_type!r}: {why}"
        usual = "mean" if images else "last or mean"
        raise JobError(Reason.INVALID_CONFIG, message, field=f"{wanted.field}.pooling", hint=f"Set {usual}, or auto.")
    return wanted.pooling


def is_causal(config: Any) -> bool:
    """Whether a token sees only those before it: language models of a type that nobody fills gaps with."""
    if getattr(config, "use_bidirectional_attention", None):
        return False
    kind = config.model_type
    return (
        auto.class_of(kind, "AutoModelForMaskedLM") is None and auto.class_of(kind, "AutoModelForCausalLM") is not None
    )


def refusal(config: Mapping[str, Any]) -> str | None:
    """(config.json) -> why the model's bare form gives no vector of a row, or None."""
    if config.get("is_encoder_decoder"):
        return "the model has an encoder and a decoder, and no one vector of a row"
    if "text_config" in config and "vision_config" in config:
        return "the model takes texts and images together, and has no one vector of a row"
    return None
