"""Models of three layers in memory, by family: no files, no tokenizer."""

from __future__ import annotations

import importlib
from typing import Any

from finetune_trainer.tasks.registry import task_for

NEW, KEPT = task_for("text-classification").head, task_for("causal-lm").head
SIZES = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32},
    "albert": {
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "llama": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "deberta_v2": {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "relative_attention": True,
    },
}


def tiny(family: str, cls: str, **more: Any) -> Any:
    """A model of three layers in memory."""
    module = f"transformers.models.{family}"
    config_name = cls.split("For")[0].removesuffix("LMHeadModel") + "Config"
    config = getattr(importlib.import_module(f"{module}.configuration_{family}"), config_name)
    model = getattr(importlib.import_module(f"{module}.modeling_{family}"), cls)
    return model(config(vocab_size=40, pad_token_id=0, **SIZES[family], **more))
