"""The loss of hidden tokens, computed from the states at their places alone, is that of all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import IGNORE, MaskedExample
from finetune_trainer.objectives.masked_token import logits_at, masked_token
from support.families import seeded

IDS = [[5, 9, 4, 17, 30, 6], [7, 8, 4], [11, 12, 13, 14]]
TARGETS = [[IGNORE, IGNORE, 22, IGNORE, 31, IGNORE], [IGNORE, IGNORE, 9], [IGNORE] * 4]
EXAMPLES = [MaskedExample(i, None, len(i), t) for i, t in zip(IDS, TARGETS, strict=True)]


def built(kind: str) -> Any:
    import transformers as t

    tower = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower |= {"intermediate_size": 64, "max_position_embeddings": 40}
    distil = {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    more = {"albert": {"embedding_size": 16}, "electra": {"embedding_size": 16}, "modernbert": {"pad_token_id": 0}}
    names = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "albert": "Albert"}
    names |= {"electra": "Electra", "modernbert": "ModernBert", "deberta-v2": "DebertaV2", "mpnet": "MPNet"}
    settings = distil if kind == "distilbert" else tower | more.get(kind, {})
    config = getattr(t, f"{names[kind]}Config")(**settings)
    model = seeded(getattr(t, f"{names[kind]}ForMaskedLM"), config).eval()
    with torch.no_grad():  # a bias of zero, and shared weights, might hide what is wrong
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "distilbert", "albert", "electra", "modernbert", "deberta-v2", "mpnet"]
)
def test_the_head_is_given_the_hidden_places_alone(kind: str) -> None:
    model, batch = built(kind), collate(EXAMPLES, 0, 40)
    whole = model(**batch.inputs).logits
    hidden = batch.labels != IGNORE
    assert torch.allclose(logits_at(model, batch.inputs, hidden), whole[hidden], atol=1e-5)
    assert torch.equal(model(**batch.inputs).logits, whole), "the model is left as it was"
    found = masked_token(model, batch)
    rates = -whole.log_softmax(-1)
    expected = torch.stack([rates[0, 2, 22] + rates[0, 4, 31], rates[1, 2, 9], torch.zeros(())])
    assert torch.allclose(found.sums, expected, atol=1e-5)
    assert found.counts.tolist() == [2, 1, 0]
    right = (whole.argmax(-1) == batch.labels).sum(1)
    assert found.outputs is not None
    assert found.outputs.tolist() == right.tolist()


def test_its_gradient_is_that_of_all_logits_also_under_an_adapter() -> None:
    for wrap in (lambda model: model, lambda model: get_peft_model(model, LoraConfig(target_modules=["query"]))):
        model, batch = wrap(built("bert")).double(), collate(EXAMPLES, 0, 40)
        trained = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(masked_token(model, batch).total, trained, allow_unused=True)
        logits = model(**batch.inputs).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        for a, b in zip(found, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, atol=1e-10)


def test_a_batch_without_a_hidden_token_weighs_nothing() -> None:
    model, batch = built("bert"), collate(EXAMPLES[2:], 0, 40)
    found = masked_token(model, batch)
    found.total.backward()
    assert found.sums.tolist() == [0.0]
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
