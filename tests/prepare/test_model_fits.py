"""What the workers could not use is refused by the prepare step; what they will leave alone is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exits import JobError, Reason
from finetune_api.run import HubAccess
from finetune_api.tuning import Training
from finetune_trainer.model.fetch import stored_weights
from finetune_trainer.model.weights import headers
from finetune_trainer.prepare.checks.without_effect import without_effect
from finetune_trainer.prepare.rows.survey import row_problem
from finetune_trainer.storage import location
from finetune_trainer.tasks.embeddings import within_embeddings
from finetune_trainer.tasks.registry import task_for
from prepare.conftest import Runs
from support.families import bare, edit, save, tiny_gpt2, tiny_mixtral
from support.jobs import job_config
from support.models import chats, mails, tiny_llama, write_jsonl


def spoil(folder: Path, how: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    if how == "missing":
        del weights["model.layers.1.mlp.up_proj.weight"]
    elif how == "shape":
        weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    elif how == "layers":
        edit(folder / "config.json", num_hidden_layers=1)
    elif how == "not safetensors":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        return
    save_file(weights, path, metadata={"format": "pt"})


def chat_job(folder: Path, model: Path, **spec: Any) -> Any:
    if not (folder / "chat").exists():
        write_jsonl(folder / "chat" / "a.jsonl", chats(40, seed=1))
    data = {"train": {"uri": f"{(folder / 'chat').as_uri()}/*"}}
    return job_config(folder, task="causal-lm", model={"uri": model.as_uri()}, data=data, **spec)


@pytest.mark.parametrize(
    ("how", "reason", "said"),
    [
        ("missing", Reason.UNSUPPORTED_MODEL, "model.layers.1.mlp.up_proj.weight"),
        ("shape", Reason.UNSUPPORTED_MODEL, "model.layers.1.mlp.up_proj.weight"),
        ("layers", Reason.UNSUPPORTED_MODEL, "layers that its config.json leaves out"),
        ("not safetensors", Reason.MODEL_NOT_FOUND, "model.safetensors is not a safetensors file"),
    ],
)
def test_files_that_do_not_fill_the_model_are_refused(
    tmp_path: Path, run: Runs, how: str, reason: Reason, said: str
) -> None:
    model = tiny_llama(tmp_path / "model")
    spoil(model, how)
    error = run.refused(chat_job(tmp_path, model))
    assert (error.reason, error.field) == (reason, "spec.model.uri")
    assert said in error.message


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("bert", "text-classification"),
        ("distilbert", "text-classification"),
        ("llama", "text-classification"),
        ("gpt2", "causal-lm"),
        ("llama", "causal-lm"),
    ],
)
def test_a_model_saved_without_a_head_gets_one_where_it_can_be_learned(
    tmp_path: Path, run: Runs, kind: str, task: str
) -> None:
    model = bare(kind, tmp_path / "model")
    if task == "causal-lm":
        config = chat_job(tmp_path, model)
    else:
        write_jsonl(tmp_path / "data" / "a.jsonl", mails(40))
        config = job_config(tmp_path)
    if (kind, task) == ("llama", "causal-lm"):
        error = run.refused(config)
        assert "saved without its output layer" in error.hint
        assert "lm_head.weight" in error.message
    else:
        assert run(config).data.train_rows == 40


def test_unused_weights_inside_the_layers_are_named(tmp_path: Path, run: Runs) -> None:
    model = tiny_llama(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    more = {"model.layers.0.self_attn.q_proj.weight_scale": torch.ones(1), "score.weight": torch.ones(2, 32)}
    save_file(weights | more, model / "model.safetensors", metadata={"format": "pt"})
    found = {f.kind: f for f in run(chat_job(tmp_path, model)).data.findings}
    assert found["UnusedWeights"].count == 1
    assert "weight_scale" in found["UnusedWeights"].message


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_experts_that_adapters_leave_out_are_named(tmp_path: Path, run: Runs, family: str) -> None:
    model = tiny_mixtral(tmp_path / "model", family)
    found = {f.kind: f for f in run(chat_job(tmp_path, model, method={"type": "lora"})).data.findings}
    assert "model.layers.*.mlp.experts.gate_up_proj" in found["UntrainedExperts"].message
    assert found["UntrainedExperts"].count == 4
    whole = run(chat_job(tmp_path, model, output={"uri": (tmp_path / "other").as_uri()}))
    assert not [f for f in whole.data.findings if f.kind == "UntrainedExperts"]


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ({"type": "lora", "lora": {"targetModules": ["nonsense"]}}, "spec.method.lora.targetModules"),
        ({"type": "freeze", "freeze": {"lastLayers": 9}}, "spec.method.freeze.lastLayers"),
    ],
)
def test_a_method_that_does_not_fit_is_refused_before_a_worker_starts(
    tmp_path: Path, run: Runs, method: dict[str, Any], field: str
) -> None:
    error = run.refused(chat_job(tmp_path, tiny_gpt2(tmp_path / "model"), method=method))
    assert (error.reason, error.field) == (Reason.INVALID_CONFIG, field)


def with_token(model: Path, token: str) -> None:
    """A token that somebody added to the tokenizer and not to the model."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True)])
    tokenizer.save(str(model / "tokenizer.json"))


def test_a_token_without_an_embedding_is_a_bad_row_where_it_occurs(tmp_path: Path, run: Runs) -> None:
    model = tiny_llama(tmp_path / "model")
    with_token(model, "<|image|>")
    rows = chats(40, seed=1)
    assert run(chat_job(tmp_path, model)).data.bad_rows == 0, "it is there, and does not occur"
    rows[17]["messages"][-1]["content"] += " <|image|>"
    write_jsonl(tmp_path / "chat" / "a.jsonl", rows)
    other = {"output": {"uri": (tmp_path / "other").as_uri()}}
    error = run.refused(chat_job(tmp_path, model, **other))
    assert error.reason is Reason.INVALID_DATA
    assert "a.jsonl:18" in error.message
    assert (
        "'<|image|>', which the tokenizer takes for token 261, and the model has embeddings for 0 to 260 only"
        in error.message
    )


def test_of_an_unknown_class_and_a_token_without_an_embedding_the_class_is_told() -> None:
    task = within_embeddings(task_for("text-classification"), {"<|image|>": 999}, 900)
    columns, labels = {"text": "text", "label": "label"}, ("ham", "spam")
    told = {
        (text, label): fault.kind
        if (fault := row_problem({"text": text, "label": label}, task, columns, labels, None))
        else None
        for text in ("plain", "an <|image|>")
        for label in ("ham", "egg")
    }
    assert told == {
        ("plain", "ham"): None,
        ("plain", "egg"): "UnknownLabel",
        ("an <|image|>", "ham"): "InvalidRow",
        ("an <|image|>", "egg"): "UnknownLabel",
    }


def test_a_template_that_writes_a_token_without_an_embedding_is_refused(tmp_path: Path, run: Runs) -> None:
    model = tiny_llama(tmp_path / "model")
    with_token(model, "<|start|>")
    template = "<|start|>{% for m in messages %}{{ m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}"
    edit(model / "tokenizer_config.json", chat_template=template)
    error = run.refused(chat_job(tmp_path, model))
    assert (error.reason, error.field) == (Reason.UNSUPPORTED_MODEL, "spec.model.uri")
    assert "token 261" in error.message


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, run: Runs) -> None:
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    model = tiny_llama(tmp_path / "model")
    config = LlamaConfig.from_pretrained(model, vocab_size=200)
    error = run.refused(chat_job(tmp_path, save(model, LlamaForCausalLM(config))))
    assert error.reason is Reason.UNSUPPORTED_MODEL
    assert "tokens up to 260" in error.message


def test_headers_are_read_alike_from_a_folder_a_bucket_and_the_hub(
    tmp_path: Path, llama: Path, s3: Any, s3_credentials: None, hub: Any
) -> None:
    expected = headers(llama)
    assert expected["model.norm.weight"].shape == (32,)
    uri = f"s3://{s3.bucket()}/models/llama"
    for path in llama.iterdir():
        location(uri, s3.access).put(path.name, path.read_bytes())
    assert stored_weights(job_config(tmp_path, storage=s3.access, model={"uri": uri})) == expected
    hub.add("models", "org/tiny", {path.name: path.read_bytes() for path in llama.iterdir()})
    config = job_config(tmp_path, model={"uri": "hf://org/tiny"}, hub=HubAccess(endpoint=hub.endpoint))
    assert stored_weights(config) == expected


def test_options_that_change_nothing_are_named(tmp_path: Path, run: Runs) -> None:
    tiny_llama(tmp_path / "model")
    training = {"layerDecay": 0.9, "dropout": 0.1}
    method = {"type": "freeze", "freeze": {"lastLayers": 0}}
    config = chat_job(tmp_path, tmp_path / "model", training=training, method=method)
    found = [f.message for f in run(config).data.findings if f.kind == "WithoutEffect"]
    assert found == [
        "spec.training.dropout has no effect: there is no dropout in what the method trains; remove it.",
        "spec.training.layerDecay has no effect: everything that the method trains lies at one depth; remove it.",
    ]
    for n, freeze in enumerate(({"lastLayers": 1}, {"lastLayers": 0, "evalTrunk": False})):
        method = {"type": "freeze", "freeze": freeze}
        out = {"uri": (tmp_path / f"other-{n}").as_uri()}
        other = chat_job(tmp_path, tmp_path / "model", training={"dropout": 0.1}, method=method, output=out)
        assert not [f for f in run(other).data.findings if f.kind == "WithoutEffect"], freeze
    whole = chat_job(tmp_path, tmp_path / "model", training=training, output={"uri": (tmp_path / "other").as_uri()})
    assert not [f for f in run(whole).data.findings if f.kind == "WithoutEffect"]


def test_dropout_has_an_effect_where_what_is_trained_has_some(tmp_path: Path, bert: Path, run: Runs) -> None:
    rows = write_jsonl(tmp_path / "mails.jsonl", [{"text": f"mail {n}", "label": "ab"[n % 2]} for n in range(20)])
    for n, (method, told) in enumerate(
        (
            ({"type": "freeze"}, 0),
            ({"type": "features"}, 1),
            ({"type": "features", "features": {"head": "mlp"}}, 0),
            ({"type": "setfit"}, 0),
        )
    ):
        config = job_config(
            tmp_path,
            model={"uri": bert.as_uri()},
            data={"train": {"uri": rows.as_uri()}},
            method=method,
            training={"dropout": 0.2},
            output={"uri": (tmp_path / f"out-{n}").as_uri()},
        )
        assert len([f for f in run(config).data.findings if f.kind == "WithoutEffect"]) == told, method


def test_dropout_of_a_family_without_any_is_named_and_a_model_without_layers_cannot_decay() -> None:
    """A network of convolutions; one without a list of layers."""
    from transformers.models.resnet.configuration_resnet import ResNetConfig

    head, model = task_for("text-classification").head, torch.nn.Linear(2, 2)
    model.config, model.base_model_prefix = ResNetConfig(), "base"  # type: ignore[assignment]
    (finding,) = without_effect(Training(dropout=0.2), model, head)
    assert "spec.training.dropout has no effect" in finding.message
    with pytest.raises(JobError, match="no list of layers, whose rates could decay") as caught:
        without_effect(Training(layer_decay=0.5), model, head)
    assert caught.value.field == "spec.training.layerDecay"
