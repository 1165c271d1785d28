"""Every method and variant: what it leaves loads in plain peft with equal answers, and a run that is broken off goes on
as if nothing had been, bit for bit, with dropout on.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import Reason
from finetune_api.method import METHODS
from finetune_trainer.methods.saved import put_on
from finetune_trainer.output.verify import Probe
from finetune_trainer.train import loop, result
from support.attempts import Bench
from support.models import chats, mails, write_jsonl

STEPS, STOP = 8, 5
CLASSES, CHAT = "text-classification", "causal-lm"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rsLora": (CLASSES, {"type": "lora", "lora": {"rank": 4, "rsLora": True, "dropout": 0.1}}),
    "LoRA+": (CLASSES, {"type": "lora", "lora": {"rank": 4, "rateRatio": 16}}),
    "dora": (CLASSES, {"type": "lora", "lora": {"rank": 4, "dora": True}}),
    "ia3": (CLASSES, {"type": "ia3"}),
    "ia3 of chats": (CHAT, {"type": "ia3", "ia3": {"targetModules": ["v_proj", "down_proj", "gate_proj"]}}),
    "prompt": (CLASSES, {"type": "prompt-tuning", "promptTuning": {"virtualTokens": 5}}),
    "prompt of chats": (CHAT, {"type": "prompt-tuning", "promptTuning": {"virtualTokens": 5, "initText": "echo it"}}),
    "prefix": (CLASSES, {"type": "prefix-tuning", "prefixTuning": {"virtualTokens": 5}}),
    "prefix of chats": (CHAT, {"type": "prefix-tuning", "prefixTuning": {"virtualTokens": 5}}),
    "dora of chats, embeddings whole": (
        CHAT,
        {"type": "lora", "lora": {"rank": 4, "dora": True, "modulesToSave": ["embed_tokens"]}},
    ),
}


@pytest.fixture
def bench(tmp_path: Path, bert: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """A job of a case in a folder of this name. What is exported is looked at before that: see `before`."""

    def make(name: str, case: str, **training: Any) -> Bench:
        task, method = CASES[case]
        data = tmp_path / "train.jsonl"
        if not data.exists():  # the order of the rows hangs on the file's time
            write_jsonl(data, chats(40, seed=1) if task == CHAT else mails(40, seed=1))
        steps = {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2}
        return Bench(
            tmp_path / name,
            {
                "task": task,
                "model": {"uri": (llama if task == CHAT else bert).as_uri()},
                "data": {"train": {"uri": data.as_uri()}, "validation": {"fraction": 0.1}},
                "method": method,
                "training": steps | training,
                "checkpoints": {"everySteps": 2},
                "output": {"uri": (tmp_path / name / "out").as_uri()} | ({"merge": True} if merges(case) else {}),
            },
        )

    return make


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A probe of rows, and the tuned model's answers to them before it was written."""
    seen: list[Any] = []
    write = result.write_model

    def looked_at(folder: Path, model: Any, source: Path, probe: Any, **more: Any) -> None:
        seen[:] = [probe, answers(model, probe)]
        write(folder, model, source, probe, **more)

    monkeypatch.setattr(result, "write_model", looked_at)
    return seen


def merges(case: str) -> bool:
    return METHODS[CASES[case][1]["type"]].merges


def loaded(base: Path, task: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto: Any = AutoModelForCausalLM if task == CHAT else AutoModelForSequenceClassification
    return auto.from_pretrained(base)


def reloaded(out: Path, base: Path, task: str) -> Any:
    """As people load it: the base by transformers, the adapter by peft."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings")
        return PeftModel.from_pretrained(loaded(base, task), str(out))


def answers(model: Any, probe: Probe) -> list[torch.Tensor]:
    """Of the probe's rows, at their own tokens: plain peft answers for virtual tokens too that stand before these."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        found = [model(**row).logits[0] for row in probe.rows]
    model.train(was_training)
    return [
        found if found.dim() == 1 else found[-row["input_ids"].shape[1] :]
        for found, row in zip(found, probe.rows, strict=True)
    ]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_it_loads_in_peft_with_equal_answers_and_goes_on_bit_for_bit(
    case: str, bench: Callable[..., Bench], before: list[Any], bert: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = CASES[case][0]
    whole = bench("whole", case)
    whole.prepare()
    whole.attempt()
    out = whole.folder / "out"
    probe, expected = before
    base = llama if task == CHAT else bert
    assert equal(expected, answers(reloaded(out, base, task), probe))
    assert equal(expected, answers(put_on(loaded(base, task), out), probe))
    assert not equal(expected, answers(loaded(base, task), probe)), "it learned nothing"
    if merges(case):
        assert equal(expected, answers(loaded(out / "merged", task), probe))
    assert not (out / "model.safetensors").exists()
    assert all(value.isfinite().all() for value in load_file(out / "adapter_model.safetensors").values())

    broken = bench("broken", case)
    broken.prepare()
    step, made = loop.train_step, [0]

    def noted(*arguments: Any, **more: Any) -> Any:
        made[0] = more["step"]
        return step(*arguments, **more)

    monkeypatch.setattr(loop, "train_step", noted)
    assert broken.failing(1, stop=lambda: made[0] > STOP).reason is Reason.INTERRUPTED
    assert broken.attempt(2).resumed_from_step == STOP
    assert broken.events("step") == whole.events("step")
    assert broken.weights("adapter_model.safetensors") == whole.weights("adapter_model.safetensors")
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
