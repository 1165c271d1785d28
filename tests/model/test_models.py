"""Models come as safetensors and nothing else; what cannot be trained is refused with its reason and its field."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.facts import architecture, read_config
from finetune_trainer.model.fetch import fetch_model
from finetune_trainer.model.load import _PlainMeta, load_model
from finetune_trainer.output.provenance import license_of
from finetune_trainer.storage import location
from finetune_trainer.tasks.registry import task_for
from support.jobs import job_config
from support.s3 import s3, s3_credentials

__all__ = ["s3", "s3_credentials"]


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A model folder that a test may spoil."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def refusal(folder: Path) -> JobError:
    with pytest.raises(JobError) as caught:
        fetch_model(job_config(folder.parent))
    assert caught.value.field == "spec.model.uri"
    return caught.value


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "model.Q4_1.gguf", "tf_model.h5"])
def test_weights_in_any_other_format_are_refused(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / name)
    error = refusal(model)
    assert error.reason is Reason.UNSAFE_MODEL
    assert name in error.message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_is_not_found(model: Path, name: str) -> None:
    (model / name).unlink()
    error = refusal(model)
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert name in error.message


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "/etc/passwd", "model.bin"])
def test_an_index_that_leads_out_of_the_folder_is_refused(model: Path, shard: str) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert refusal(model).reason is Reason.UNSAFE_MODEL


def test_from_a_bucket_come_only_the_files_that_are_safe_and_needed(
    model: Path, tmp_path: Path, s3: Any, s3_credentials: None
) -> None:
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (model / "modeling_evil.py").write_text("raise SystemExit")
    uri = f"s3://{s3.bucket()}/models/bert"
    config = job_config(tmp_path, storage=s3.access, model={"uri": uri})
    for path in model.iterdir():
        location(uri, s3.access).put(path.name, path.read_bytes())
    small = fetch_model(config, weights=False)
    assert not (small / "model.safetensors").exists()
    folder = fetch_model(config)
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {path.name for path in model.iterdir()} - {"pytorch_model.bin", "modeling_evil.py"}
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert license_of(folder) == "apache-2.0"
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    assert fetch_model(config) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed, "it was there already"


@pytest.mark.parametrize(
    ("config", "task", "reason"),
    [
        ({"model_type": "no-such-model"}, "causal-lm", Reason.UNSUPPORTED_MODEL),
        ({"model_type": "own", "auto_map": {"AutoModel": "modeling_own.Own"}}, "causal-lm", Reason.UNSAFE_MODEL),
        ({"model_type": "bert"}, "causal-lm", Reason.UNSUPPORTED_MODEL),
        ({"model_type": "vit"}, "text-classification", Reason.UNSUPPORTED_MODEL),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "causal-lm", Reason.UNSUPPORTED_MODEL),
        ({"model_type": "os.system('x')"}, "causal-lm", Reason.UNSUPPORTED_MODEL),
    ],
)
def test_models_that_cannot_be_trained_are_told_from_their_config(
    config: dict[str, Any], task: Any, reason: Reason
) -> None:
    with pytest.raises(JobError) as caught:
        architecture(config, task_for(task).head)
    assert caught.value.reason is reason
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "task", "name"),
    [
        ("bert", "text-classification", "BertForSequenceClassification"),
        ("llama", "causal-lm", "LlamaForCausalLM"),
        ("roberta", "text-classification", "RobertaForSequenceClassification"),
        ("gpt2", "causal-lm", "GPT2LMHeadModel"),
    ],
)
def test_the_class_of_a_model_follows_from_its_type_and_task(kind: str, task: Any, name: str) -> None:
    assert architecture({"model_type": kind}, task_for(task).head).class_name == name


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_config_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(JobError) as caught:
        read_config(tmp_path)
    assert caught.value.field == "spec.model.uri"


@pytest.mark.parametrize("spoil", ["missing", "other shape"])
def test_weights_that_do_not_fill_the_model_are_never_made_up(model: Path, spoil: str) -> None:
    weights = load_file(model / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    if spoil == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(3, 3)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match=r"1 weights of BertForSequenceClassification .*output\.dense\.weight") as caught:
        load_model(model, task_for("text-classification").head, labels=("ham", "spam"), seed=0, pad_id=0)
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL


@pytest.mark.parametrize(
    "change", [{"hidden_size": "wide"}, {"num_attention_heads": 7}, {"pad_token_id": [1]}, {"hidden_act": "no-such"}]
)
def test_a_config_that_transformers_refuses_is_no_error_of_ours(model: Path, change: dict[str, Any]) -> None:
    config = json.loads((model / "config.json").read_text()) | change
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(JobError) as caught:
        load_model(model, task_for("text-classification").head, labels=("a", "b"), seed=1, pad_id=0)
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL
    assert caught.value.field == "spec.model.uri"


def test_a_new_head_is_the_same_for_the_same_seed(bert: Path) -> None:
    heads = [
        load_model(
            bert, task_for("text-classification").head, labels=("a", "b", "c"), seed=s, pad_id=0
        ).classifier.weight
        for s in (1, 1, 2)
    ]
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_short_cuts_on_the_meta_device_change_no_weight(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> dict[str, torch.Tensor]:
        model = load_model(bert, task_for("text-classification").head, labels=("a", "b", "c"), seed=7, pad_id=0)
        return dict(model.named_parameters()) | dict(model.named_buffers())

    ours = loaded()
    monkeypatch.setattr("finetune_trainer.model.load._PlainMeta", contextlib.nullcontext)
    theirs = loaded()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_short_cuts_leave_alone_what_they_do_not_know() -> None:
    with _PlainMeta():
        meta = torch.empty(2, 3, device="meta")
        assert torch.empty_like(input=meta, device="cpu").shape == (2, 3)
        assert torch.empty_like(meta, memory_format=torch.preserve_format).is_meta
        assert torch.empty_like(meta.t(), device="cpu").stride() == (1, 3)
        assert torch.nn.init.normal_(torch.zeros(2, 3)).abs().sum() > 0
