"""A tiny model of every family that we claim, from a config and a fixed seed, with a tokenizer of the family's kind.

A family is saved bare, as `AutoModel` saves it, or with the head of some task, by the name of transformers' Auto class.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.families import seeded
from support.models import tiny_llama
from support.tokenizers import BERT, ROBERTA, byte_level, unigram, word_piece

POSITIONS, SIDE = 128, 16
BARE = "AutoModel"
TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.1,  # in so narrow a model, new weights of the usual 0.02 hardly mix the tokens
}
GROUPED = TOWER | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 2]}

_roberta = functools.partial(byte_level, tokens=ROBERTA, double=True)
_modernbert = functools.partial(byte_level, tokens=BERT)
_deberta = functools.partial(unigram, tokens={"pad_token": "[PAD]", **BERT})
_albert = functools.partial(unigram, tokens={"pad_token": "", **BERT, "unk_token": "<unk>"} | {"pad_token": "<pad>"})
_xlm = functools.partial(unigram, tokens=ROBERTA, double=True)


def _decoder(folder: Path, positions: int) -> int:
    tiny_llama(folder)
    return 261


@dataclass(frozen=True)
class Recipe:
    """How a tiny model of a model type is made."""

    config: Mapping[str, Any]
    tokenizer: Callable[[Path, int], int] | None = word_piece
    """(folder, positions) -> the size of the vocabulary that it has written there; None: the model reads images."""
    ids: Mapping[str, int | None] = field(default_factory=lambda: {"pad_token_id": 0})
    """Ids of special tokens, as the config names them."""


DECODER = {"pad_token_id": 4, "bos_token_id": None, "eos_token_id": 2}
RECIPES: dict[str, Recipe] = {
    "bert": Recipe(TOWER | {"max_position_embeddings": POSITIONS}),
    "roberta": Recipe(
        TOWER | {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1},
        _roberta,
        {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    ),
    "distilbert": Recipe(
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 64,
            "max_position_embeddings": POSITIONS,
            "initializer_range": TOWER["initializer_range"],
        }
    ),
    "albert": Recipe(TOWER | {"embedding_size": 16, "max_position_embeddings": POSITIONS}, _albert),
    "electra": Recipe(TOWER | {"embedding_size": 16, "max_position_embeddings": POSITIONS}),
    "modernbert": Recipe(
        TOWER | {"max_position_embeddings": POSITIONS, "local_attention": 16, "global_attn_every_n_layers": 2},
        _modernbert,
        {"cls_token_id": 0, "bos_token_id": 0, "sep_token_id": 1, "eos_token_id": 1, "pad_token_id": 2},
    ),
    "deberta-v2": Recipe(
        TOWER
        | {
            "max_position_embeddings": POSITIONS,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
        _deberta,
    ),
    "xlm-roberta": Recipe(
        TOWER | {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1},
        _xlm,
        {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    ),
    "mpnet": Recipe(
        TOWER | {"max_position_embeddings": POSITIONS + 2},
        _roberta,
        {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    ),
    "llama": Recipe(GROUPED, _decoder, DECODER),
    "mistral": Recipe(GROUPED | {"sliding_window": 64}, _decoder, DECODER),
    "qwen2": Recipe(GROUPED | {"tie_word_embeddings": True}, _decoder, DECODER),
    "qwen3": Recipe(GROUPED | {"head_dim": 8, "tie_word_embeddings": True}, _decoder, DECODER),
    "gemma3_text": Recipe(
        GROUPED | {"head_dim": 8, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
        _decoder,
        DECODER,
    ),
    "gpt2": Recipe({"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}, _decoder, DECODER),
    "vit": Recipe(TOWER | {"image_size": 16, "patch_size": 4}, None, {}),
    "deit": Recipe(TOWER | {"image_size": 16, "patch_size": 4}, None, {}),
    "swin": Recipe(
        {"image_size": 16, "patch_size": 2, "window_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2]},
        None,
        {},
    ),
    "convnext": Recipe(STAGES | {"num_stages": 2, "patch_size": 4}, None, {}),
    "resnet": Recipe(STAGES | {"embedding_size": 8, "layer_type": "basic"}, None, {}),
}


def module_of(model_type: str) -> Any:
    """transformers' module with the model's classes."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    name = model_type_to_module_name(model_type)
    return importlib.import_module(f"transformers.models.{name}.modeling_{name}")


def class_of(model_type: str, auto: str = BARE) -> Any:
    """The class that transformers' Auto class of this name gives for the model type; None where it has none."""
    from transformers.models.auto import modeling_auto

    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", auto.removeprefix(BARE)).upper()
    names = getattr(modeling_auto, f"MODEL_{kind}{'_' if kind else ''}MAPPING_NAMES")
    name = names.get(model_type)
    name = name[0] if isinstance(name, tuple) else name
    return getattr(module_of(model_type), name) if name else None


def build(model_type: str, folder: Path, auto: str = BARE, *, seed: int = 0, **config: Any) -> Any:
    """The model; it lies in the folder, with config.json and tokenizer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    recipe, cls = RECIPES[model_type], class_of(model_type, auto)
    words = {"vocab_size": recipe.tokenizer(folder, POSITIONS)} if recipe.tokenizer else {}
    model = seeded(cls, cls.config_class(**{**recipe.config, **words, **recipe.ids, **config}), seed)
    model.save_pretrained(folder)
    if recipe.tokenizer is None:
        side = recipe.config.get("image_size", SIDE)
        size = {"size": {"height": side, "width": side}, "image_processor_type": "ViTImageProcessor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(size))
    return model


@functools.cache
def folder_of(model_type: str, auto: str = BARE) -> Path:
    """The model, made once a session; not to be changed."""
    folder = Path(_folder().name) / f"{model_type}-{auto}"
    build(model_type, folder, auto)
    return folder


@functools.cache
def _folder() -> Any:
    return tempfile.TemporaryDirectory(prefix="families-")
