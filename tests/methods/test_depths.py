"""Every parameter has the depth of its layer, whatever the family calls its parts."""

from __future__ import annotations

import pytest

from finetune_api.exits import JobError
from finetune_api.tuning import Lora, Method
from finetune_trainer.methods import apply_method
from finetune_trainer.methods.modules import depths
from methods.in_memory import KEPT, NEW, SIZES, tiny


@pytest.mark.parametrize(
    ("family", "cls", "expected"),
    [
        (
            "bert",
            "BertForSequenceClassification",
            {
                "bert.embeddings": 0,
                "bert.encoder.layer.0": 1,
                "bert.encoder.layer.2": 3,
                "bert.pooler": 4,
                "classifier": 4,
            },
        ),
        (
            "distilbert",
            "DistilBertForSequenceClassification",
            {
                "distilbert.embeddings": 0,
                "distilbert.transformer.layer.0": 1,
                "distilbert.transformer.layer.2": 3,
                "pre_classifier": 4,
                "classifier": 4,
            },
        ),
        (
            "albert",
            "AlbertForSequenceClassification",
            {
                "albert.embeddings": 0,
                "albert.encoder.embedding_hidden_mapping_in": 0,
                "albert.encoder.albert_layer_groups.0": 1,
                "albert.pooler": 2,
                "classifier": 2,
            },
        ),
        (
            "llama",
            "LlamaForCausalLM",
            {"model.embed_tokens": 0, "model.layers.0": 1, "model.layers.2": 3, "model.norm": 4, "lm_head": 4},
        ),
        (
            "gpt2",
            "GPT2LMHeadModel",  # its output projection is tied to the embeddings
            {
                "transformer.wte": 0,
                "transformer.wpe": 0,
                "transformer.h.0": 1,
                "transformer.h.2": 3,
                "transformer.ln_f": 4,
            },
        ),
        (
            "deberta_v2",
            "DebertaV2ForSequenceClassification",
            {
                "deberta.embeddings": 0,
                "deberta.encoder.rel_embeddings": 0,
                "deberta.encoder.layer.2": 3,
                "classifier": 4,
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value in SIZES else "",
)
def test_depth_follows_the_layers(family: str, cls: str, expected: dict[str, int]) -> None:
    model = tiny(family, cls)
    found = depths(model, NEW if "Sequence" in cls else KEPT)
    assert list(found) == [name for name, _ in model.named_parameters()]
    for part, depth in expected.items():
        own = {name: value for name, value in found.items() if name.startswith(f"{part}.")}
        assert own, part
        assert set(own.values()) == {depth}, own
    assert set(found.values()) == set(range(max(expected.values()) + 1))


def test_adapters_lie_where_their_layers_do() -> None:
    model = apply_method(
        tiny("bert", "BertForSequenceClassification"), Method(type="lora", lora=Lora(rank=2)), NEW, seed=0
    )
    found = depths(model, NEW)
    trained = {name: found[name] for name, p in model.named_parameters() if p.requires_grad}
    for name, depth in trained.items():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        assert depth == (4 if layer is None else layer + 1), name
    assert set(trained.values()) == {1, 2, 3, 4}


def test_a_model_without_layers_is_refused() -> None:
    import torch

    class Flat(torch.nn.Module):
        base_model_prefix = "base"

    with pytest.raises(JobError, match="no list of layers"):
        depths(Flat(), NEW)
