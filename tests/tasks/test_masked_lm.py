"""Domain adaptation end to end: plain texts in, a model out that knows them better, and that other jobs start from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.load import load_model
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.families import edit, masked_bert
from support.models import mails, write_jsonl
from support.zoo import BARE, folder_of

Make = Callable[..., Bench]
STEPS = 30


@pytest.fixture(scope="session")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT that fills gaps."""
    return masked_bert(tmp_path_factory.mktemp("gaps"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    rows = [{"text": row["text"]} for row in mails(150, seed=3)] + [{"text": mails(1, words=(200, 200))[0]["text"]}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)

    def bench(name: str, base: Path, **spec: Any) -> Bench:
        plain: dict[str, Any] = {
            "task": "masked-lm",
            "model": {"uri": base.as_uri()},
            "data": {"train": {"uri": train.as_uri()}, "validation": {"fraction": 0.1}, "test": {"fraction": 0.1}},
            "training": {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2},
            "output": {"uri": (tmp_path / name / "out").as_uri()},
            "checkpoints": {"everySteps": 10},
        }
        found = Bench(tmp_path / name, plain | spec)
        found.prepare()
        return found

    return bench


@pytest.mark.parametrize("method", ["full", "freeze", "lora"])
def test_a_model_learns_the_language_of_texts(make: Make, gaps: Path, method: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForMaskedLM

    bench = make(method, gaps, method={"type": method})
    report = bench.attempt()
    losses = [event["loss"] for event in bench.events("step")]
    assert sum(losses[-5:]) < sum(losses[:5])
    test = bench.metrics()["test"]
    assert {"loss", "loss-low", "perplexity", "perplexity-high", "accuracy", "accuracy-low"} <= test.keys()
    assert report.data is not None
    assert {f.kind for f in report.data.findings} & {"Windows", "Truncated"} == {"Windows"}, "nothing is cut"
    out = bench.folder / "out"
    model = AutoModelForMaskedLM.from_pretrained(gaps if method == "lora" else out).eval()
    if method == "lora":
        model = PeftModel.from_pretrained(model, out).eval()
    tokenizer = load_tokenizer(out)
    task, facts = task_for("masked-lm"), JobFacts({"text": "text"}, settings=task_for("masked-lm").defaults)
    rows = [{"text": "please review the [MASK] of our [MASK]"}, {"text": "lunch with the team"}, {"text": "漢"}]
    with torch.inference_mode():
        filled, judged, unknown = task.predict(model, rows, facts, {}, tokenizer, 64)
        logits = model(**tokenizer.hf(rows[0]["text"], return_tensors="pt")).logits[0]
    best = [tokenizer.decode([int(i)]) for i in logits.argmax(-1)]
    places = [p for p, i in enumerate(tokenizer.encode(rows[0]["text"], None, 64)[0]) if i == tokenizer.mask_id]
    assert [next(iter(fill)) for fill in filled["fills"]] == [best[p] for p in places]
    assert filled["text"] == "please review the {} of our {}".format(*(best[p] for p in places))
    assert judged["tokens"] == 4
    assert judged["perplexity"] == pytest.approx(2.718281828 ** judged["loss"], rel=1e-4)
    assert unknown == {"loss": None, "perplexity": None, "tokens": 0}
    page = (out / "report.html").read_text()
    assert "[MASK]" in page
    assert "AutoModelForMaskedLM" in (out / "README.md").read_text()


def test_the_same_words_are_hidden_at_each_evaluation_and_after_a_kill(make: Make, gaps: Path) -> None:
    spec = {"method": {"type": "full"}, "evaluation": {"everySteps": 10}}
    whole = make("whole", gaps, **spec)
    whole.attempt()
    broken = make("broken", gaps, **spec)
    calls = iter(range(10_000))
    assert broken.failing(1, stop=lambda: next(calls) > 70).reason is Reason.INTERRUPTED
    stopped = broken.snapshot(1).progress.step  # type: ignore[union-attr]
    assert 0 < stopped < STEPS
    assert broken.attempt(2).resumed_from_step == stopped
    assert broken.events("step") == whole.events("step")
    assert broken.events("evaluation") == whole.events("evaluation")
    assert broken.weights() == whole.weights()


@pytest.mark.parametrize(("family", "method"), [("bert", "lora"), ("modernbert", "lora"), ("distilbert", "full")])
def test_a_base_without_its_head_gets_the_layers_before_the_output_anew(
    make: Make, tmp_path: Path, family: str, method: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForMaskedLM

    base = folder_of(family, BARE)
    merge = {"merge": True} if method == "lora" else {}
    output = {"uri": (tmp_path / "bare" / "out").as_uri(), **merge}
    training = {"maxSteps": 24, "globalBatchSize": 16, "learningRate": 2e-2}
    bench = make("bare", base, method={"type": method}, output=output, training=training)
    report = bench.attempt()
    assert report.data is not None
    (finding,) = [f for f in report.data.findings if f.kind == "NewHead"]
    assert "learned anew" in finding.message
    losses = [event["loss"] for event in bench.events("step")]
    assert sum(losses[-4:]) < sum(losses[:4])
    out = tmp_path / "bare" / "out"
    ids = torch.tensor([[5, 9, 12, 30, 7]])
    if method == "lora":
        alone = AutoModelForMaskedLM.from_pretrained(out / "merged").eval()
        adapted = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base), out).eval()
        with torch.inference_mode():
            assert torch.allclose(alone(ids).logits, adapted(ids).logits, atol=1e-4)
        assert len(json.loads((out / "adapter_config.json").read_text())["modules_to_save"]) == 2
    else:
        _, info = AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
        assert not info["missing_keys"]


def test_a_base_without_its_head_whose_output_layer_stands_alone_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(folder_of("bert", BARE), base)
    edit(base / "config.json", tie_word_embeddings=False)
    head = task_for("masked-lm").head
    with pytest.raises(JobError) as caught:
        load_model(base, head, labels=None, seed=0, pad_id=0)
    assert "1 weights of BertForMaskedLM are missing" in caught.value.message
    assert "decoder.weight" in caught.value.message


def test_a_classifier_starts_from_the_result(make: Make, gaps: Path, tmp_path: Path) -> None:
    adapted = make("adapted", gaps, method={"type": "full"}, training={"maxSteps": 4, "learningRate": 1e-2})
    adapted.attempt()
    train = write_jsonl(tmp_path / "mails.jsonl", mails(120, seed=8))
    job = Bench(
        tmp_path / "job",
        {
            "task": "text-classification",
            "model": {"uri": (adapted.folder / "out").as_uri()},
            "data": {"train": {"uri": train.as_uri()}, "test": {"fraction": 0.2}},
            "training": {"maxSteps": 80, "globalBatchSize": 8, "learningRate": 5e-3},
            "method": {"type": "full"},
            "output": {"uri": (tmp_path / "job" / "out").as_uri()},
        },
    )
    job.prepare()
    job.attempt()
    assert job.metrics()["test"]["accuracy"] > 0.8
    config = json.loads((tmp_path / "job" / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
