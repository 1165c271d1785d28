"""Tiny models of further families, from configs and fixed seeds, beside the tokenizers of `support.models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.models import tiny_bert, tiny_llama


def save(folder: Path, model: Any, **changes: Any) -> Path:
    """The model in a folder that has a tokenizer already; `changes` go into its config.json."""
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def seeded(cls: Any, config: Any, seed: int = 0) -> Any:
    """A model with weights from the seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config)


def edit(path: Path, **values: Any) -> None:
    """Change fields of a JSON file; None takes one away."""
    said = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in said.items() if value is not None}))


def tiny_gpt2(folder: Path) -> Path:
    """A GPT2LMHeadModel: transposed linear layers, no pad token."""
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    tiny_llama(folder, pad=False)
    config = GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=2, eos_token_id=2)
    return save(folder, seeded(GPT2LMHeadModel, config))


def tiny_roberta(folder: Path) -> Path:
    """A RobertaModel, which knows one kind of text only, beside a tokenizer that tells two texts apart."""
    from transformers.models.roberta.configuration_roberta import RobertaConfig
    from transformers.models.roberta.modeling_roberta import RobertaModel

    tiny_bert(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = RobertaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=0,
    )
    return save(folder, seeded(RobertaModel, config))


def tiny_mixtral(folder: Path, family: str = "mixtral") -> Path:
    """A mixture of four experts, by family: mixtral or qwen2_moe."""
    import importlib

    tiny_llama(folder)
    name = {"mixtral": "Mixtral", "qwen2_moe": "Qwen2Moe"}[family]
    config = getattr(importlib.import_module(f"transformers.models.{family}.configuration_{family}"), f"{name}Config")
    model = getattr(importlib.import_module(f"transformers.models.{family}.modeling_{family}"), f"{name}ForCausalLM")
    more: dict[str, Any] = (
        {"num_local_experts": 4}
        if family == "mixtral"
        else {
            "num_experts": 4,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "decoder_sparse_step": 1,
        }
    )
    settings = config(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        pad_token_id=4,
        eos_token_id=2,
        bos_token_id=None,
        **more,
    )
    return save(folder, seeded(model, settings))


def masked_bert(folder: Path, **settings: Any) -> Path:
    """A BertForMaskedLM: the encoder of `tiny_bert` with a head that fills gaps."""
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertForMaskedLM

    tiny_bert(folder, **settings)
    return save(folder, seeded(BertForMaskedLM, BertConfig.from_pretrained(folder)))


def bare(kind: str, folder: Path) -> Path:
    """A model saved without any head, as `AutoModel` saves it: bert, distilbert, llama (untied) or gpt2."""
    if kind == "bert":
        return tiny_bert(folder)
    if kind == "gpt2":
        from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

        model = GPT2LMHeadModel.from_pretrained(tiny_gpt2(folder)).transformer
        return save(folder, model)
    if kind == "distilbert":
        from transformers.models.distilbert.configuration_distilbert import DistilBertConfig
        from transformers.models.distilbert.modeling_distilbert import DistilBertModel

        tiny_bert(folder)
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
        return save(
            folder,
            seeded(
                DistilBertModel,
                DistilBertConfig(
                    vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128
                ),
            ),
        )
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_llama(folder)).model
    return save(folder, model, tie_word_embeddings=False)


def classifier(folder: Path, names: dict[int, str], seed: int = 5) -> Path:
    """A BERT that was trained to tell these classes apart (that is, its head is not zero)."""
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertForSequenceClassification

    tiny_bert(folder)
    config = BertConfig.from_pretrained(folder, id2label=names, label2id={name: i for i, name in names.items()})
    return save(folder, seeded(BertForSequenceClassification, config, seed))
