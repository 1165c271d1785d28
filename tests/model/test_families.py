"""Whatever a family calls its parts and however its base was saved: the base is loaded whole, and the head is new."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exits import JobError, Reason
from finetune_api.families import FAMILIES
from finetune_api.tasks import TASKS
from finetune_trainer.model.facts import architecture
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.registry import task_for
from support.zoo import BARE, RECIPES, build, class_of, folder_of

CLASSIFIER = task_for("text-classification").head
LABELS = ("a", "b")
AUTO = {
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForImageClassification",
}
POOLER = {"pooler.weight", "pooler.bias", "pooler.dense.weight", "pooler.dense.bias"}
SAVED = (BARE, "AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModelForMaskedImageModeling", *sorted(AUTO))
ELSEWHERE = dict.fromkeys(("llama", "qwen2", "qwen3"), ("AutoModelForQuestionAnswering",))
"""Classes that keep the base under another name than the rest of their family."""


def head_of(auto: str) -> HeadPolicy:
    """A new head of this kind, as a task would ask for it."""
    if auto == CLASSIFIER.auto_class:
        return CLASSIFIER
    cls = re.compile(rf"\w+{auto.removeprefix(BARE)}")
    labelled = auto != "AutoModelForQuestionAnswering"
    config = (lambda labels: {"num_labels": len(labels)}) if labelled else (lambda labels: {})
    return HeadPolicy("tests", cls, auto, "", is_new=True, config=config)


def load(folder: Path, head: HeadPolicy, seed: int = 1) -> Any:
    labels = None if head.auto_class == "AutoModelForQuestionAnswering" else LABELS
    return load_model(folder, head, labels=labels, seed=seed, pad_id=0)


@pytest.mark.parametrize("model_type", RECIPES)
def test_a_base_gets_a_head_however_it_was_saved(tmp_path: Path, model_type: str) -> None:
    heads = [auto for auto in sorted(AUTO) if auto not in ELSEWHERE.get(model_type, ()) and class_of(model_type, auto)]
    assert heads
    for saved in SAVED:
        if not class_of(model_type, saved) or saved in ELSEWHERE.get(model_type, ()):
            continue
        theirs = dict(build(model_type, tmp_path / saved, saved).base_model.named_parameters())
        for auto in heads:
            model = load(tmp_path / saved, head_of(auto))
            ours = dict(model.base_model.named_parameters())
            assert {n for n in ours if not torch.equal(ours[n], theirs.get(n, ours[n][..., :0]))} <= POOLER, (
                saved,
                auto,
            )
            assert ours.keys() <= theirs.keys() | POOLER
            new = [p for n, p in model.named_parameters() if not n.startswith(f"{model.base_model_prefix}.")]
            assert new, (saved, auto)
            assert all(bool(p.isfinite().all()) for p in new)


@pytest.mark.parametrize("model_type", ELSEWHERE)
def test_a_class_that_would_not_find_the_base_again_is_refused(model_type: str) -> None:
    (auto,) = ELSEWHERE[model_type]
    for saved in ("AutoModelForCausalLM", "AutoModelForSequenceClassification"):
        with pytest.raises(JobError, match="under 'transformer', and the model's files have them under 'model'"):
            load(folder_of(model_type, saved), head_of(auto))


@pytest.mark.parametrize("model_type", RECIPES)
def test_no_weight_of_a_base_may_be_missing(tmp_path: Path, model_type: str) -> None:
    auto = next(auto for auto in sorted(AUTO) if class_of(model_type, auto))
    build(model_type, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in sorted(weights) if re.search(r"\.\d+\..*(norm|Norm|ln_).*\.weight", name))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match=r"1 weights of .* are missing") as caught:
        load(tmp_path, head_of(auto))
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL


@pytest.mark.parametrize("model_type", ["bert", "electra", "llama"])
def test_a_head_that_another_task_has_trained_is_nobodys_start(model_type: str) -> None:
    """Both tasks' heads have the same name and, by chance, the same shape."""
    folder = folder_of(model_type, "AutoModelForTokenClassification")
    theirs = load_file(folder / "model.safetensors")
    one, same, other = (load(folder, CLASSIFIER, seed) for seed in (1, 1, 2))
    name = next(n for n, p in one.named_parameters() if p.shape == (2, 32) and "embed" not in n)
    weight = one.get_parameter(name)
    if name in theirs:
        assert not torch.isin(weight, theirs[name]).any()
    assert torch.equal(weight, same.get_parameter(name))
    assert not torch.equal(weight, other.get_parameter(name))


def test_a_head_whose_classes_nobody_named_starts_anew_for_named_ones() -> None:
    folder = folder_of("bert", "AutoModelForSequenceClassification")
    theirs = load_file(folder / "model.safetensors")["classifier.weight"]
    assert not torch.isin(load(folder, CLASSIFIER).classifier.weight, theirs).any()
    numbered = load_model(folder, CLASSIFIER, labels=("1", "0"), seed=1, pad_id=0).classifier.weight
    assert torch.equal(numbered, theirs[[1, 0]])


@pytest.mark.parametrize("task", TASKS)
def test_the_families_that_a_task_claims_have_its_class_and_others_are_refused_by_naming_these(task: str) -> None:
    head, claimed = task_for(task).head, {family.model_type: family.name for family in TASKS[task].families}
    assert len(claimed) > 4
    for model_type in FAMILIES:
        if model_type in claimed:
            found = architecture({"model_type": model_type}, head)
            assert found.class_name == class_of(model_type, head.auto_class).__name__
        elif model_type not in TASKS[task].unfit:
            with pytest.raises(JobError) as caught:
                architecture({"model_type": model_type}, head)
            assert all(name in caught.value.hint for name in claimed.values())
