"""In every family the model gives the same with what was kept, and learns the same (I1)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from finetune_api.exits import JobError
from finetune_api.families import FAMILIES
from finetune_api.tuning import Freeze, Method
from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import ClassExample, Example
from finetune_trainer.batches.image_example import ImageExample
from finetune_trainer.batches.layout import micro_batches
from finetune_trainer.methods import apply_method
from finetune_trainer.model.load import load_model
from finetune_trainer.objectives.cross_entropy import cross_entropy
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.trunk.cut import CannotCut, LayersCut, frozen_layers
from finetune_trainer.trunk.kept_rows import computed
from finetune_trainer.trunk.trial import ALL, FIRST, LAST, NOTHING, trial
from support.zoo import RECIPES, folder_of

READ = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2"), LAST),
    **dict.fromkeys(("swin", "convnext", "resnet"), ALL),
}
"""What the heads of families look at; the others at the first position."""
LENGTHS, MOST = (12, 9, 7, 5, 3, 11, 2), 16


def model_of(model_type: str, last_layers: int, dtype: torch.dtype = torch.float64) -> Any:
    head = task_of(model_type).head
    model = load_model(folder_of(model_type), head, labels=("a", "b"), seed=1, pad_id=0)
    return apply_method(model.to(dtype), Method(type="freeze", freeze=Freeze(last_layers=last_layers)), head, 1).eval()


def task_of(model_type: str) -> Any:
    kind = "image" if FAMILIES[model_type].kind == "vision" else "text"
    return task_for(f"{kind}-classification")


def examples_for(model_type: str) -> list[Example]:
    rng = np.random.default_rng(0)
    if FAMILIES[model_type].kind != "vision":
        return [ClassExample(rng.integers(10, 30, n).tolist(), None, n, label=n % 2) for n in LENGTHS]

    def values(pixels: np.ndarray) -> np.ndarray:
        return pixels.transpose(2, 0, 1) / 255.0

    pixels = rng.integers(0, 255, (len(LENGTHS), 16, 16, 3), dtype=np.uint8)
    return [ImageExample(each, values, 16, n % 2) for n, each in enumerate(pixels)]


def gradients(model: Any, examples: list[Example]) -> torch.Tensor:
    model.zero_grad()
    for batch in micro_batches(examples, 3, 0, MOST):
        cross_entropy()(model, batch).total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("last_layers", [0, 1])
@pytest.mark.parametrize("model_type", RECIPES)
def test_gradients_with_what_was_kept_are_those_without(model_type: str, last_layers: int) -> None:
    try:
        model = model_of(model_type, last_layers)
    except JobError:
        assert model_type == "albert", "only its layers are one"
        return
    examples = examples_for(model_type)
    plain = gradients(model, examples)
    cut = LayersCut(model, frozen_layers(model, task_of(model_type).head))
    assert cut.depth > 0
    with torch.inference_mode():
        keeping, _ = trial(cut, cross_entropy(), examples[:4], 0, MOST)
        found: list[Any] = []
        for _ in computed(cut, keeping, [[e] for e in examples], size=2, pad_id=0, max_length=MOST, found=found):
            pass
    read = {way for way in keeping.ways if way != NOTHING}
    assert read == {READ.get(model_type, FIRST) if last_layers == 0 else ALL}
    kept = [example for row in found for example in row]
    with_kept = gradients(model, kept)
    assert plain.norm() > 0
    assert (with_kept - plain).norm() <= 1e-10 * plain.norm()
    assert torch.equal(gradients(model, examples), plain), "rows that bring nothing are computed as ever"
    cut.remove()
    assert torch.equal(gradients(model, examples), plain)


def test_the_frozen_layers_are_not_asked_again() -> None:
    model, examples = model_of("bert", 1), examples_for("bert")
    cut = LayersCut(model, frozen_layers(model, task_of("bert").head))
    with torch.inference_mode():
        keeping, kept = trial(cut, cross_entropy(), examples, 0, MOST)
    asked: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: asked.append(name))
    cross_entropy()(model, collate(kept, 0, MOST))
    assert "bert.encoder.layer.0.attention.self.query" not in asked
    assert "bert.encoder.layer.1.attention.self.query" in asked
    asked.clear()
    cut.computed(collate(examples, 0, MOST).inputs)
    assert "bert.encoder.layer.0.attention.self.query" in asked
    assert "bert.encoder.layer.1" not in asked
    assert keeping.ways == (ALL,)


def test_what_is_never_a_prefix_is_not_cut() -> None:
    model, head = model_of("bert", 0), task_of("bert").head
    assert len(frozen_layers(model, head)) == 2
    for name in ("bert.encoder.layer.0.output.dense.weight", "bert.embeddings.LayerNorm.weight"):
        other = copy.deepcopy(model)
        other.get_parameter(name).requires_grad_(True)
        assert not frozen_layers(other, head)


@pytest.mark.parametrize("lengths", [(1, 1), (2, 1)])
def test_rows_too_short_to_tell_the_first_from_the_last_are_kept_whole(lengths: tuple[int, ...]) -> None:
    model = model_of("bert", 0)
    cut = LayersCut(model, frozen_layers(model, task_of("bert").head))
    examples = [ClassExample([11] * n, None, n, label=0) for n in lengths]
    with torch.inference_mode():
        assert trial(cut, cross_entropy(), examples, 0, MOST)[0].ways == (ALL,)


def test_a_row_that_ends_with_the_pad_token_is_not_kept_by_its_last_position() -> None:
    model = model_of("gpt2", 0)
    model.config.pad_token_id = 4
    cut = LayersCut(model, frozen_layers(model, task_of("gpt2").head))
    examples = examples_for("gpt2")
    with torch.inference_mode():
        keeping, _ = trial(cut, cross_entropy(), examples, 4, MOST)
        assert keeping.ways == (LAST,)
        odd = ClassExample([20, 21, 22, 4], None, 4, label=0)
        with pytest.raises(CannotCut, match="pad token"):
            list(computed(cut, keeping, [[odd]], size=2, pad_id=4, max_length=MOST, found=[]))


def test_a_head_that_also_reads_a_layer_in_the_midst_is_found_out() -> None:
    model, seen = model_of("bert", 0), dict[str, torch.Tensor]()
    model.bert.encoder.layer[0].register_forward_hook(lambda module, given, output: seen.update(first=output))

    def with_first_layer(module: Any, given: Any, output: Any) -> Any:
        output.logits = output.logits + seen["first"][:, 0, :2]
        return output

    model.register_forward_hook(with_first_layer)
    cut = LayersCut(model, frozen_layers(model, task_of("bert").head))
    with torch.inference_mode(), pytest.raises(CannotCut, match="something else"):
        trial(cut, cross_entropy(), examples_for("bert"), 0, MOST)
