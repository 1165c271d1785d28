"""The written model loads with transformers and peft as its card says, computes the same, and names no path of this
machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from finetune_trainer.methods import METHODS
from finetune_trainer.output import Result, export
from finetune_trainer.output.card import model_card
from finetune_trainer.output.model import write_model
from finetune_trainer.output.provenance import license_of
from finetune_trainer.output.verify import Probe
from finetune_trainer.tasks.base import JobFacts
from output.cases import chat, classification, config, events
from support.models import tiny_bert, tiny_llama

ADAPTER = METHODS["lora"].adapter
TEXT = "meeting report lunch project"
PROBE = Probe(({"input_ids": torch.tensor([[5, 6, 7, 8]])},), torch.device("cpu"))


def _classifier(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    names = {"id2label": {0: "ham", 1: "spam"}, "label2id": {"ham": 0, "spam": 1}}
    return AutoModelForSequenceClassification.from_pretrained(tiny_bert(folder), num_labels=2, **names).eval()


def _decoder(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama(folder)).eval()


def _with_adapter(model: Any, task: str) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(4)
    head = (
        {"modules_to_save": ["classifier"], "target_modules": ["query", "value"]}
        if task == "SEQ_CLS"
        else {"target_modules": ["q_proj", "v_proj"]}
    )
    model = get_peft_model(model, LoraConfig(task_type=task, r=2, **head)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def _logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tokenizer(TEXT, return_tensors="pt")).logits


def _no_trace_of_this_machine(folder: Path, machine: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".md", ".html", ".jinja"):
            assert str(machine) not in path.read_text(), path
        assert path.suffix not in (".bin", ".pt", ".pkl"), path


def _run_the_cards_code(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the code block as a reader would, in a folder that holds `model` (and `base`)."""
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    said: list[str] = []
    exec(compile(code, "card", "exec"), {"print": lambda *a: said.append(" ".join(map(str, a)))})
    return said[-1]


@pytest.fixture
def tokenizer_of():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained


def test_a_whole_classifier_is_exported_loads_and_predicts(
    tmp_path: Path, tokenizer_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSequenceClassification

    model, folder = _classifier(tmp_path / "base"), tmp_path / "model"
    tokenizer = tokenizer_of(tmp_path / "base")
    expected = _logits(model, tokenizer)
    export(
        folder,
        classification(),
        events(60, 10),
        lambda path: write_model(path, model, tmp_path / "base", PROBE, base="org/minilm"),
    )
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
        "metrics.json",
        "events.jsonl",
        "report.html",
        "tensorboard",
    } <= {p.name for p in folder.iterdir()}
    again = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert torch.equal(_logits(again, tokenizer_of(folder)), expected)
    assert again.config.id2label == {0: "ham", 1: "spam"}
    _no_trace_of_this_machine(folder, tmp_path)
    assert _run_the_cards_code((folder / "README.md").read_text(), tmp_path, monkeypatch) in ("ham", "spam")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["test"]["macro-f1"], metrics["confusion"], metrics["seed"]) == (0.9612, [[676, 13], [19, 292]], 42)
    assert len((folder / "events.jsonl").read_text().splitlines()) == 66


def test_an_adapter_with_a_head_loads_on_the_base_and_its_merged_model_computes_the_same(
    tmp_path: Path, tokenizer_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = _with_adapter(_classifier(tmp_path / "base"), "SEQ_CLS")
    tokenizer, folder = tokenizer_of(tmp_path / "base"), tmp_path / "model"
    expected = _logits(model, tokenizer)
    settings = config(
        method={"type": "lora"},
        model={"uri": "s3://models/base"},
        output={"uri": "s3://models/spam-filter", "merge": True},
    )
    result = classification(config=settings)
    export(
        folder,
        result,
        events(9, 3),
        lambda path: write_model(path, model, tmp_path / "base", PROBE, adapter=ADAPTER, base=result.base, merge=True),
    )
    assert (folder / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "s3://models/base"
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "merged").eval()
    assert torch.allclose(_logits(merged, tokenizer_of(folder / "merged")), expected, atol=1e-5)
    _no_trace_of_this_machine(folder, tmp_path)
    assert _run_the_cards_code((folder / "README.md").read_text(), tmp_path, monkeypatch) in ("ham", "spam")

    from peft import PeftModel

    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    assert torch.allclose(_logits(PeftModel.from_pretrained(base, folder).eval(), tokenizer), expected, atol=1e-6)


def test_a_decoders_adapter_is_written_and_writes_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = _with_adapter(_decoder(tmp_path / "base"), "CAUSAL_LM"), tmp_path / "model"
    export(
        folder,
        chat(),
        events(9, 3),
        lambda path: write_model(
            path, model, tmp_path / "base", PROBE, adapter=ADAPTER, base="s3://models/smollm2", merge=True
        ),
    )
    _no_trace_of_this_machine(folder, tmp_path)
    assert isinstance(_run_the_cards_code((folder / "README.md").read_text(), tmp_path, monkeypatch), str)
    assert (folder / "merged" / "model.safetensors").exists()


def test_large_models_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune_trainer.output import model as module

    monkeypatch.setattr(module, "SHARD", "30KB")
    model = _classifier(tmp_path / "base")
    write_model(tmp_path / "model", model, tmp_path / "base", PROBE, base="org/x")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1


@pytest.mark.parametrize("result", [classification(), chat(), classification(license="apache-2.0")])
def test_the_cards_header_is_what_the_hub_reads(result: Result) -> None:
    text = model_card(result)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head == ModelCard(text).data.to_dict() | {"model-index": head["model-index"]}
    assert head["license"] == (result.license or "unknown")
    assert head.get("base_model") == (None if "://" in result.base else result.base)
    assert all("://" not in name for name in head.get("datasets", []))
    assert head["library_name"] == ("peft" if result.config.method.type == "lora" else "transformers")
    assert head["pipeline_tag"] in ("text-classification", "text-generation")
    assert head["metrics"] == [n for n in result.metrics if not n.endswith(("-low", "-high"))]
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == next(iter(result.metrics.values()))


def test_the_card_says_what_a_reader_needs() -> None:
    text = model_card(classification())
    for said in (
        "0.9475 to 0.9731",
        "| spam | 0.952 | 0.938 | 0.945 | 311 |",
        "InvalidJson (2)",
        "| seed | 42 |",
        "| columns | text: body, label: kind |",
        "ckpt/2/450 (best)",
        "transformers",
    ):
        assert said in text, said
    silent = classification(
        report=classification().report.model_copy(
            update={"test": None, "evaluation": None, "data": None, "resolved": None}
        )
    )
    assert "the model was not evaluated" in model_card(silent)


def test_data_cannot_break_the_cards_header_or_tables() -> None:
    evil = 'a"\n---\nlicense: mit\n| <b>'
    report = classification().report
    data = report.data.model_copy(update={"labels": (evil,)})
    text = model_card(
        classification(
            facts=JobFacts({}, (evil,)), report=report.model_copy(update={"data": data, "test": {evil: 1.0}})
        )
    )
    assert yaml.safe_load(text.split("\n---\n")[0])["license"] == "unknown"
    assert "<b>" not in text.split("\n---\n", 1)[1].split("```")[0]


def test_the_base_models_license_is_taken_from_its_card(tmp_path: Path) -> None:
    assert license_of(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: 'mit'\n---\n# x\nlicense: no\n")
    assert license_of(tmp_path) == "mit"
    (tmp_path / "README.md").write_text("# x\nlicense: no\n")
    assert license_of(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\n---\nlicense: no\n")
    assert license_of(tmp_path) is None
