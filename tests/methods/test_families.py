"""In every family exactly the wanted weights are trained: by each method, and no layer that serves all the others."""

from __future__ import annotations

import re
from typing import Any

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.families import FAMILIES, VISION
from finetune_api.tuning import Freeze, Lora, Method
from finetune_trainer.methods import apply_method
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.registry import task_for
from support.zoo import RECIPES, folder_of

CLASSIFIER, IMAGES = task_for("text-classification").head, task_for("image-classification").head
HEADS = {
    "bert": "classifier bert.pooler",
    "roberta": "classifier",
    "distilbert": "pre_classifier classifier",
    "albert": "classifier albert.pooler",
    "electra": "classifier",
    "modernbert": "head classifier",
    "deberta-v2": "pooler classifier",
    "xlm-roberta": "classifier",
    "mpnet": "classifier",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2"), "score"),
}
LAST = {
    "bert": "bert.encoder.layer.1",
    "roberta": "roberta.encoder.layer.1",
    "distilbert": "distilbert.transformer.layer.1",
    "electra": "electra.encoder.layer.1",
    "modernbert": "model.layers.1 model.final_norm",
    "deberta-v2": "deberta.encoder.layer.1",
    "xlm-roberta": "roberta.encoder.layer.1",
    "mpnet": "mpnet.encoder.layer.1",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text"), "model.layers.1 model.norm"),
    "gpt2": "transformer.h.1 transformer.ln_f",
}
"""ALBERT's layers are one."""
STAGES = {
    "vit": "vit.layers.1 vit.layernorm",
    "deit": "deit.layers.1 deit.layernorm",
    "swin": "swin.encoder.layers.1 swin.layernorm",
    "convnext": "convnext.encoder.stages.1 convnext.layernorm",
    "resnet": "resnet.encoder.stages.1",
}
"""Of models of images: the last layer or stage, and what reads it."""
ADAPTED = {
    **dict.fromkeys(("vit", "deit", "swin"), r"\.(q_proj|k_proj|v_proj|o_proj|fc1|fc2|reduction)\.weight$"),
    "convnext": r"\.pwconv[12]\.weight$",
    "resnet": r"\.convolution\.weight$",
}
"""The weights that get adapters: of linear layers, and of convolutions where there are no others."""
TEXTS = [name for name in RECIPES if FAMILIES[name].kind != VISION]


def tuned(model_type: str, method: Method) -> Any:
    head = IMAGES if FAMILIES[model_type].kind == VISION else CLASSIFIER
    model = load_model(folder_of(model_type), head, labels=("a", "b"), seed=1, pad_id=0)
    return apply_method(model, method, head, 1)


def trained(model: Any) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def inside(model: Any, places: str) -> set[str]:
    """The weights of these modules."""
    return {n for n, _ in model.named_parameters() if n.startswith(tuple(f"{place}." for place in places.split()))}


@pytest.mark.parametrize("model_type", TEXTS)
def test_exactly_the_wanted_weights_are_trained(model_type: str) -> None:
    whole = tuned(model_type, Method(type="full"))
    assert trained(whole) == {name for name, _ in whole.named_parameters()}
    head = tuned(model_type, Method(type="freeze"))
    assert trained(head) == inside(head, HEADS[model_type])
    lora = tuned(model_type, Method(type="lora", lora=Lora(rank=2)))
    kept = "|".join(re.escape(place) for place in HEADS[model_type].split())
    saved = {name for name in trained(lora) if re.search(rf"\.({kept})\.modules_to_save\.", name)}
    assert len(saved) == len(inside(head, HEADS[model_type]))
    adapters = trained(lora) - saved
    assert all(re.search(r"\.lora_[AB]\.", name) for name in adapters)
    assert not [name for name in adapters if re.search(rf"\.({kept})\.", name)], "the head is trained whole"
    assert {int(n) for name in adapters for n in re.findall(r"\.(?:layers?|h)\.(\d+)\.", name)} in ({0, 1}, set())


@pytest.mark.parametrize("model_type", STAGES)
def test_of_a_model_of_images_exactly_the_wanted_weights_are_trained(model_type: str) -> None:
    whole = tuned(model_type, Method(type="full"))
    assert trained(whole) == {name for name, _ in whole.named_parameters()}
    head = tuned(model_type, Method(type="freeze"))
    assert trained(head) == inside(head, "classifier")
    last = tuned(model_type, Method(type="freeze", freeze=Freeze(last_layers=1)))
    assert trained(last) == inside(last, f"classifier {STAGES[model_type]}")
    lora = tuned(model_type, Method(type="lora", lora=Lora(rank=2)))
    saved = {name for name in trained(lora) if ".classifier.modules_to_save." in name}
    assert len(saved) == len(inside(head, "classifier"))
    wanted = {name for name, _ in whole.named_parameters() if re.search(ADAPTED[model_type], name)}
    plain = {f"base_model.model.{name.removesuffix('.weight')}" for name in wanted}
    assert trained(lora) - saved == {f"{place}.lora_{part}.default.weight" for place in plain for part in "AB"}


@pytest.mark.parametrize("model_type", LAST)
def test_the_last_layer_is_trained_with_what_reads_it_and_nothing_that_serves_all(model_type: str) -> None:
    model = tuned(model_type, Method(type="freeze", freeze=Freeze(last_layers=1)))
    assert trained(model) == inside(model, f"{HEADS[model_type]} {LAST[model_type]}")
    assert model.training


def test_layers_that_share_their_weights_are_trained_together_or_not_at_all() -> None:
    with pytest.raises(JobError, match="share their weights") as caught:
        tuned("albert", Method(type="freeze", freeze=Freeze(last_layers=1)))
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.method.freeze.lastLayers")
    model = tuned("albert", Method(type="freeze", freeze=Freeze(last_layers=2)))
    assert trained(model) == inside(model, f"{HEADS['albert']} albert.encoder.albert_layer_groups")
