"""Each method changes exactly the weights that it says, and what it leaves loads with transformers and peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import JobError, Reason
from finetune_api.tuning import Freeze, Lora, Method, Training
from finetune_trainer.methods import apply_method
from finetune_trainer.methods.modules import depths
from finetune_trainer.model.load import load_model, parameter_counts
from finetune_trainer.optimizers import optimizer_for
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.families import tiny_gpt2
from support.models import chats, mails, write_jsonl

LABELS = ("ham", "spam")
Make = Callable[..., Bench]


@pytest.fixture
def job(tmp_path: Path, bert: Path, llama: Path) -> Make:
    """A few steps of a task by a method, from the tiny models."""

    def run(task: str, **method: Any) -> Bench:
        chat = task == "causal-lm"
        train = write_jsonl(tmp_path / "train.jsonl", chats(40, seed=1) if chat else mails(40, seed=1))
        bench = Bench(
            tmp_path,
            {
                "task": task,
                "model": {"uri": (llama if chat else bert).as_uri()},
                "data": {"train": {"uri": train.as_uri()}},
                "method": method,
                "training": {"maxSteps": 4, "globalBatchSize": 8, "learningRate": 1e-2},
                "output": {"uri": (tmp_path / "out").as_uri(), **({"merge": True} if method["type"] == "lora" else {})},
            },
        )
        bench.prepare()
        bench.attempt()
        return bench

    return run


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def test_full_changes_every_weight_that_is_used(job: Make, bert: Path) -> None:
    before, after = weights(bert), weights(job("text-classification", type="full").folder / "out")
    same = [name for name, value in before.items() if torch.equal(value, after[f"bert.{name}"])]
    assert same == []


@pytest.mark.parametrize("layers", [0, 1])
def test_freeze_trains_the_head_and_the_last_layers_and_leaves_the_rest_alone(
    job: Make, bert: Path, layers: int
) -> None:
    bench = job("text-classification", type="freeze", freeze={"lastLayers": layers})
    before, after = weights(bert), weights(bench.folder / "out")
    changed = {name for name, value in before.items() if not torch.equal(value, after[f"bert.{name}"])}
    free = ("pooler.", *(["encoder.layer.1."] if layers else []))
    assert changed == {name for name in before if name.startswith(free)}
    fresh = load_model(bert, task_for("text-classification").head, labels=LABELS, seed=0, pad_id=0)
    assert not torch.equal(fresh.classifier.weight, after["classifier.weight"])


def test_b_takes_its_ratio_of_the_rate_of_a(bert: Path) -> None:
    head = task_for("text-classification").head
    found = {}
    for ratio in (None, 16.0):
        model = load_model(bert, head, labels=LABELS, seed=0, pad_id=0)
        lora = Lora(rank=2, rate_ratio=ratio, modules_to_save=("word_embeddings",))
        model = apply_method(model, Method(type="lora", lora=lora), head, 0)
        optimizer = optimizer_for(model, Training(weight_decay=0.0))
        before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        for name, p in model.named_parameters():
            p.grad = torch.ones_like(p) if name in before else None
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * group["share"]
        optimizer.step()
        moved = {
            name: float((before[name] - p).detach().mean()) for name, p in model.named_parameters() if name in before
        }
        found[ratio] = {round(step, 6) for name, step in moved.items() if ".lora_B." in name}
        assert {round(step, 6) for name, step in moved.items() if ".lora_B." not in name} == {1e-3}
    assert found == {None: {1e-3}, 16.0: {16e-3}}, "Adam's first step is the rate"


def test_a_ratio_of_rates_goes_with_layers_that_decay(bert: Path) -> None:
    head = task_for("text-classification").head
    model = load_model(bert, head, labels=LABELS, seed=0, pad_id=0)
    model = apply_method(model, Method(type="lora", lora=Lora(rank=2, rate_ratio=4.0)), head, 0)
    groups = optimizer_for(model, Training(layer_decay=0.5), depths(model, head)).param_groups
    share = {id(p): group["share"] for group in groups for p in group["params"]}
    found = {name: share[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    for layer, decayed in ((0, 0.25), (1, 0.5)):
        assert {s for name, s in found.items() if f"layer.{layer}." in name and ".lora_A." in name} == {decayed}
        assert {s for name, s in found.items() if f"layer.{layer}." in name and ".lora_B." in name} == {4 * decayed}
    assert {s for name, s in found.items() if "classifier" in name} == {1.0}


def test_freeze_of_a_language_model_trains_its_last_layer_and_final_norm(llama: Path) -> None:
    model = load_model(llama, task_for("causal-lm").head, labels=None, seed=0, pad_id=4)
    apply_method(model, Method(type="freeze", freeze=Freeze(last_layers=1)), task_for("causal-lm").head, 0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "model.norm.weight" in trained
    assert "model.embed_tokens.weight" in trained, "it is the head's too: they are tied"
    assert any(name.startswith("model.layers.1.") for name in trained)
    assert not any(name.startswith("model.layers.0.") for name in trained)


@pytest.mark.parametrize("task", ["text-classification", "causal-lm"])
def test_lora_saves_an_adapter_that_equals_the_merged_model(job: Make, bert: Path, llama: Path, task: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    out = job(task, type="lora", lora={"rank": 4}).folder / "out"
    auto: Any = AutoModelForCausalLM if task == "causal-lm" else AutoModelForSequenceClassification
    adapted = PeftModel.from_pretrained(auto.from_pretrained(llama if task == "causal-lm" else bert), str(out)).eval()
    merged, plain = (
        auto.from_pretrained(out / "merged").eval(),
        auto.from_pretrained(llama if task == "causal-lm" else bert).eval(),
    )
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other, base = (m(input_ids=ids).logits for m in (adapted, merged, plain))
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, base, atol=1e-3), "it learned nothing"
    adapter = load_file(out / "adapter_model.safetensors")
    assert all("lora_" in name or "classifier" in name or "pooler" in name for name in adapter)
    assert not (out / "model.safetensors").exists()


def test_lora_trains_adapters_and_head_only_and_starts_without_effect(bert: Path) -> None:
    model = load_model(bert, task_for("text-classification").head, labels=LABELS, seed=3, pad_id=0).eval()
    ids = torch.randint(5, 40, (2, 9))
    before = model(input_ids=ids).logits
    tuned = apply_method(
        model, Method(type="lora", lora=Lora(rank=2, dropout=0.0)), task_for("text-classification").head, 3
    ).eval()
    assert torch.equal(tuned(input_ids=ids).logits, before)
    trained = {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    total, some = parameter_counts(tuned)
    assert 0 < some < total


@pytest.mark.parametrize(
    ("method", "field"),
    [
        (Method(type="freeze", freeze=Freeze(last_layers=9)), "spec.method.freeze.lastLayers"),
        (Method(type="lora", lora=Lora(target_modules=("nonsense",))), "spec.method.lora.targetModules"),
        (Method(type="lora", lora=Lora(modules_to_save=("word_embedding",))), "spec.method.lora.modulesToSave"),
        (Method(type="lora", lora=Lora(modules_to_save=("dropout",))), "spec.method.lora.modulesToSave"),
        (Method(type="lora", lora=Lora(modules_to_save=("ense",))), "spec.method.lora.modulesToSave"),
        (
            Method(type="lora", lora=Lora(target_modules=("query", "key"), modules_to_save=("key",))),
            "spec.method.lora.modulesToSave",
        ),
    ],
)
def test_what_does_not_fit_the_model_names_its_field(bert: Path, method: Method, field: str) -> None:
    model = load_model(bert, task_for("text-classification").head, labels=LABELS, seed=0, pad_id=0)
    with pytest.raises(JobError) as caught:
        apply_method(model, method, task_for("text-classification").head, 0)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, field)


def test_a_name_that_peft_would_take_for_others_too_is_refused(bert: Path) -> None:
    """It goes by the end of a name, dots or not: a pre_classifier ends like a classifier."""
    model = load_model(bert, task_for("text-classification").head, labels=LABELS, seed=0, pad_id=0)
    model.bert.my_query = torch.nn.Linear(2, 2)
    method = Method(type="lora", lora=Lora(modules_to_save=("query",)))
    with pytest.raises(JobError, match=r"'query' would be taken for bert.my_query too") as caught:
        apply_method(model, method, task_for("text-classification").head, 0)
    assert caught.value.hint == "Write more of its name, as in bert.encoder.layer.0.attention.self.query."


def test_a_misspelt_name_is_answered_with_those_that_are_like_it(bert: Path) -> None:
    model = load_model(bert, task_for("text-classification").head, labels=LABELS, seed=0, pad_id=0)
    method = Method(type="lora", lora=Lora(modules_to_save=("word_embedding",)))
    with pytest.raises(JobError, match="no module with weights is named 'word_embedding'") as caught:
        apply_method(model, method, task_for("text-classification").head, 0)
    assert "word_embeddings" in caught.value.hint


def test_adapters_of_gpt2_lie_on_its_transposed_layers_and_merge_right(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    base = tiny_gpt2(tmp_path / "base")
    train = write_jsonl(tmp_path / "train.jsonl", chats(40, seed=1))
    bench = Bench(
        tmp_path,
        {
            "task": "causal-lm",
            "model": {"uri": base.as_uri()},
            "data": {"train": {"uri": train.as_uri()}},
            "method": {"type": "lora", "lora": {"rank": 4}},
            "training": {"maxSteps": 4, "globalBatchSize": 8, "learningRate": 1e-2},
            "output": {"uri": (tmp_path / "out").as_uri(), "merge": True},
        },
    )
    bench.prepare()
    bench.attempt()
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        assert any(f".{layer}.lora_B" in name and value.any() for name, value in adapter.items()), layer
    adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert adapted.peft_config["default"].fan_in_fan_out is True
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged").eval()
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other, before = (m(input_ids=ids).logits for m in (adapted, merged, plain))
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, before, atol=1e-3), "it learned nothing"
