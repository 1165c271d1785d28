"""Every family's own fields of dropout are found, and no other means of leaving something out."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from finetune_trainer.model.dropout import override_dropout

FIELDS = {
    "bert": {"hidden_dropout_prob", "attention_probs_dropout_prob"},
    "roberta": {"hidden_dropout_prob", "attention_probs_dropout_prob"},
    "electra": {"hidden_dropout_prob", "attention_probs_dropout_prob", "summary_last_dropout"},
    "albert": {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"},
    "distilbert": {"dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"},
    "modernbert": {"attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"},
    "deberta_v2": {"hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"},
    "gpt2": {"resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"},
    "llama": {"attention_dropout"},
    "vit": {"hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout_prob"},
    "swin": {"hidden_dropout_prob", "attention_probs_dropout_prob"},
    "convnext": set(),
    "resnet": set(),
}


def config(family: str, **values: Any) -> Any:
    module = importlib.import_module(f"transformers.models.{family}.configuration_{family}")
    found = [
        kind for name, kind in vars(module).items() if name.endswith("Config") and kind.__module__ == module.__name__
    ]
    return found[0](**values)


@pytest.mark.parametrize("family", FIELDS)
def test_a_familys_fields_are_set(family: str) -> None:
    made = config(family)
    found = set(override_dropout(made, 0.37))
    assert found - {"pooler_dropout_prob"} == FIELDS[family] - {"pooler_dropout_prob"}
    assert {getattr(made, name) for name in found} <= {0.37}


def test_the_layers_of_a_model_built_from_it_drop_as_asked() -> None:
    from transformers.models.bert.modeling_bert import BertForSequenceClassification

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    made = config("bert", vocab_size=9, **small)
    override_dropout(made, 0.37)
    model = BertForSequenceClassification(made)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.37}


def test_configs_within_a_config_are_set_too() -> None:
    outer = config("llama")
    outer.text_config = config("gpt2")
    override_dropout(outer, 0.2)
    assert (outer.attention_dropout, outer.text_config.resid_pdrop) == (0.2, 0.2)
