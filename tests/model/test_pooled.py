"""Pooled outputs with a head of our own: what is pooled, in every family; first weights; written and loaded again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import JobError, Reason
from finetune_api.families import DECODER, ENCODER, FAMILIES, VISION
from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import ClassExample
from finetune_trainer.distributed.flat import FlatGradients
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.model.facts import architecture
from finetune_trainer.model.load import load_model, reload
from finetune_trainer.model.pooled import NAME, PooledModel, pool, save_head, with_head_of
from finetune_trainer.model.pooling import Pooled
from finetune_trainer.objectives.cross_entropy import cross_entropy
from finetune_trainer.tasks.registry import task_for
from support.families import masked_bert
from support.zoo import folder_of

TEXTS, IMAGES = task_for("text-classification").head, task_for("image-classification").head
AUTO = Pooled()
LENGTHS = (3, 9, 1, 16, 7)


def pooled_model(folder: Path, wanted: Pooled = AUTO, *, images: bool = False, **more: Any) -> PooledModel:
    head = (IMAGES if images else TEXTS).on_pooled(wanted)
    return load_model(folder, head, labels=("a", "b", "c"), seed=more.pop("seed", 1), pad_id=0, **more)


def texts(lengths: tuple[int, ...] = LENGTHS) -> list[ClassExample]:
    draw = torch.Generator().manual_seed(3)
    ids = [torch.randint(5, 60, (length,), generator=draw).tolist() for length in lengths]
    return [ClassExample(row, None, len(row), i % 3) for i, row in enumerate(ids)]


def by_hand(model: PooledModel, row: list[int], pooling: str) -> torch.Tensor:
    """Of a row by itself, where nothing is padding."""
    states = model.trunk(input_ids=torch.tensor([row])).last_hidden_state[0]
    return {"mean": states.sum(0) / len(row), "cls": states[0], "last": states[len(row) - 1]}[pooling]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.kind != VISION])
def test_padding_plays_no_part_in_what_is_pooled(name: str) -> None:
    auto = {ENCODER: "mean", DECODER: "last"}[FAMILIES[name].kind]
    assert pooled_model(folder_of(name)).pooling == auto
    rows = texts()
    batch = collate(rows, 0, 64)
    for pooling in {ENCODER: ("mean", "cls", "last"), DECODER: ("mean", "last")}[FAMILIES[name].kind]:
        model = pooled_model(folder_of(name), Pooled(pooling)).eval()
        with torch.inference_mode():
            vectors = model.pooled(**batch.inputs)
            for row, vector in zip(rows, vectors, strict=True):
                assert torch.allclose(by_hand(model, row.input_ids, pooling), vector, atol=2e-6), (pooling, row)
            assert torch.equal(model(**batch.inputs).logits, model(pooled=vectors).logits)
        assert vectors.shape == (5, 32)


def test_padding_on_the_left_is_padding_too() -> None:
    states = torch.randn(2, 4, 3)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert torch.equal(pool(states, mask, "last"), torch.stack([states[0, 3], states[1, 2]]))
    assert torch.allclose(pool(states, mask, "mean"), torch.stack([states[0, 2:].mean(0), states[1, :3].mean(0)]))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("vit", "cls"), ("deit", "cls"), ("swin", "pooled"), ("convnext", "pooled"), ("resnet", "pooled")],
)
def test_an_image_is_pooled_as_its_familys_classifier_does(name: str, pooling: str) -> None:
    model, pixels = pooled_model(folder_of(name), images=True).eval(), torch.randn(2, 3, 16, 16)
    assert model.pooling == pooling
    theirs = load_model(folder_of(name), IMAGES, labels=("a", "b", "c"), seed=1, pad_id=0).eval()
    last = [module for module in theirs.modules() if isinstance(module, torch.nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    last.register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    with torch.inference_mode():
        theirs(pixel_values=pixels)
        assert torch.allclose(model.pooled(pixel_values=pixels), seen[0], atol=1e-6)
        states = model.trunk(pixel_values=pixels).last_hidden_state
        mean = pooled_model(folder_of(name), Pooled("mean"), images=True).eval().pooled(pixel_values=pixels)
    assert torch.allclose(mean, states.mean(1) if states.dim() == 3 else states.mean((2, 3)), atol=1e-6)


def test_first_weights_hang_on_the_seed_alone(bert: Path) -> None:
    for head in ("linear", "mlp"):
        torch.manual_seed(5)
        one = pooled_model(bert, Pooled(head=head)).head.state_dict()
        torch.manual_seed(6)
        same, other = pooled_model(bert, Pooled(head=head)), pooled_model(bert, Pooled(head=head), seed=2)
        assert all(torch.equal(tensor, one[name]) for name, tensor in same.head.state_dict().items())
        assert not torch.equal(other.head.output.weight, one["output.weight"])
        assert float(one["output.weight"].std()) == pytest.approx(0.02, rel=0.5)
    assert one["hidden.weight"].shape == (32, 32)
    wide = pooled_model(bert, Pooled(head="mlp", hidden=7), dropout=0.3)
    assert (wide.head.hidden.out_features, wide.head.dropout.p) == (7, 0.3)
    assert pooled_model(bert).head.dropout is None, "one layer is not dropped from"


@pytest.mark.parametrize(
    ("name", "pooling", "why"),
    [
        ("llama", "cls", "a decoder's first token sees none of the others"),
        ("vit", "last", "an image has no last token"),
        ("resnet", "cls", "it has no class token"),
    ],
)
def test_a_pooling_that_makes_no_sense_is_refused(name: str, pooling: str, why: str) -> None:
    images = FAMILIES[name].kind == VISION
    with pytest.raises(JobError) as caught:
        pooled_model(folder_of(name), Pooled(pooling, field="spec.method.features"), images=images)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.method.features.pooling")
    assert why in caught.value.message
    assert "auto" in caught.value.hint


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_a_model_without_one_vector_a_row_is_refused(kind: str) -> None:
    said = {"t5": {"is_encoder_decoder": True}, "clip": {"text_config": {}, "vision_config": {}}}[kind]
    with pytest.raises(JobError, match="no one vector of a row") as caught:
        architecture({"model_type": kind, **said}, TEXTS.on_pooled(Pooled()))
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL
    assert "BERT" in caught.value.hint


def test_a_pooler_that_the_files_lack_is_no_part_of_the_model(tmp_path: Path, bert: Path) -> None:
    lacking = pooled_model(masked_bert(tmp_path / "masked"))
    assert not [name for name, _ in lacking.named_parameters() if "pooler" in name]
    lacking.trunk.save_pretrained(tmp_path / "bare")
    reload(tmp_path / "bare", type(lacking.trunk), torch.device("cpu"), bare=True)
    with pytest.raises(JobError, match="pooler"):
        reload(tmp_path / "bare", type(lacking.trunk), torch.device("cpu"))
    assert [name for name, _ in pooled_model(bert).named_parameters() if "pooler" in name], "the base has one"


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_what_is_written_answers_as_before(bert: Path, tmp_path: Path, head: str) -> None:
    model, batch = (
        pooled_model(bert, Pooled(head=head, hidden=5 if head == "mlp" else None)).eval(),
        collate(texts(), 0, 64),
    )
    model.trunk.save_pretrained(tmp_path)
    save_head(model, tmp_path)

    def loaded(**changes: Any) -> PooledModel:
        trunk = reload(tmp_path, type(model.trunk), torch.device("cpu"), bare=True)
        return with_head_of(trunk, tmp_path, {**model.description, **changes})

    again = loaded()
    assert again.description == model.description
    assert torch.equal(again(**batch.inputs).logits, model(**batch.inputs).logits)
    for wrong in ({"outputs": 4}, {"pooling": "max"}, {"head": "tree"}):
        with pytest.raises(JobError, match="does not fit its trunk"):
            loaded(**wrong)
    (tmp_path / NAME).write_bytes(b"torn")
    with pytest.raises(JobError, match="does not fit its trunk"):
        loaded()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_micro_batches_add_up_to_the_whole(bert: Path, pooling: str) -> None:
    """I1, through the trunk too."""
    model, rows = pooled_model(bert, Pooled(pooling, "mlp"), dropout=0.0).double(), texts((3, 9, 1, 16, 7, 30, 2))
    parameters = [p for name, p in model.named_parameters() if "pooler" not in name]
    objective = cross_entropy(smoothing=0.1)
    whole = objective(model, collate(rows, 0, 64)).total / len(rows)
    expected = torch.autograd.grad(whole, parameters)
    for size in (1, 3):
        gradients = FlatGradients(model, Ranks.alone())
        gradients.begin()
        for start in range(0, len(rows), size):
            gradients.backward(objective(model, collate(rows[start : start + size], 0, 64)).total)
        gradients.reduce(len(rows))
        found = [p.grad for p in parameters]
        missed = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True)) ** 0.5
        assert missed <= 1e-10 * sum(float(e.square().sum()) for e in expected) ** 0.5


def test_a_head_on_pooled_outputs_knows_no_classes_of_the_base() -> None:
    assert TEXTS.belongs_to(["BertForSequenceClassification"])
    assert not TEXTS.on_pooled(Pooled()).belongs_to(["BertForSequenceClassification"])
    assert dataclasses.replace(TEXTS.on_pooled(Pooled()), pooled=None).belongs_to(["BertForSequenceClassification"])
