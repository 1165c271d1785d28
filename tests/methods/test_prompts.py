"""Virtual tokens and learned scales: rows that are padded together are answered as each by itself, with equal gradients
(I1); a text goes on from its cache; and what does not fit is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import JobError, Reason
from finetune_api.tuning import Ia3, Method, PrefixTuning, PromptTuning, Training
from finetune_trainer import prepare
from finetune_trainer.methods import apply_method
from finetune_trainer.methods.registry import METHODS
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.load import load_model
from finetune_trainer.optimizers import optimizer_for
from finetune_trainer.tasks.generation import greedy
from methods.in_memory import KEPT, NEW, tiny
from support.attempts import Bench
from support.models import mails, write_jsonl

PROMPT = Method(type="prompt-tuning", prompt_tuning=PromptTuning(virtual_tokens=4))
PREFIX = Method(type="prefix-tuning", prefix_tuning=PrefixTuning(virtual_tokens=4))
SCALES = Method(type="ia3")
TOKENS = dataclasses.replace(NEW, peft_task="TOKEN_CLS")
ANSWERS = dataclasses.replace(NEW, peft_task="QUESTION_ANS", serves="something else")

CLASSIFIERS = {
    "bert": "BertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "albert": "AlbertForSequenceClassification",
    "deberta_v2": "DebertaV2ForSequenceClassification",
    "llama": "LlamaForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
}
WRITERS = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel"}
PREFIXED = ("bert", "llama", "gpt2")
CASES = [
    *((PROMPT, family, cls, NEW) for family, cls in CLASSIFIERS.items()),
    *((PREFIX, family, CLASSIFIERS[family], NEW) for family in PREFIXED),
    *((SCALES, family, cls, NEW) for family, cls in CLASSIFIERS.items()),
    *((method, family, cls, KEPT) for method in (PROMPT, PREFIX, SCALES) for family, cls in WRITERS.items()),
    (PREFIX, "bert", "BertForTokenClassification", TOKENS),
]


def tuned(method: Method, family: str, cls: str, head: HeadPolicy) -> Any:
    """In double precision, without dropout, and away from where adapters start."""
    torch.manual_seed(1)
    model = tiny(family, cls)
    METHODS[method.type].check(model, METHODS[method.type].settings(method), head)
    found = apply_method(model, method, head, seed=3).double().eval()
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return found


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize(
    ("method", "family", "cls", "head"),
    CASES,
    ids=lambda value: getattr(value, "type", value if isinstance(value, str) else ""),
)
def test_padding_changes_neither_an_answer_nor_a_gradient(
    method: Method, family: str, cls: str, head: HeadPolicy
) -> None:
    model = tuned(method, family, cls, head)
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 40, (1, length), generator=draw) for length in (3, 9, 6)]
    alone = [model(input_ids=row, attention_mask=torch.ones_like(row)).logits for row in rows]
    sum(logits.pow(2).sum() for logits in alone).backward()  # type: ignore[union-attr]
    expected = gradients(model).clone()
    assert expected.norm() > 0
    model.zero_grad()
    width = 11
    ids = torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[1])) for row in rows])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(row), (0, width - row.shape[1])) for row in rows])
    together = model(input_ids=ids, attention_mask=mask).logits
    parts = [found[: row.shape[1]] if found.dim() > 1 else found for found, row in zip(together, rows, strict=True)]
    for one, other in zip(alone, parts, strict=True):
        assert torch.allclose(one[0], other, atol=1e-6, rtol=1e-6)
    sum(part.pow(2).sum() for part in parts).backward()  # type: ignore[union-attr]
    assert (gradients(model) - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("method", [PROMPT, PREFIX], ids=lambda method: method.type)
@pytest.mark.parametrize("family", WRITERS)
def test_a_text_goes_on_from_its_cache(method: Method, family: str) -> None:
    model = tuned(method, family, WRITERS[family], KEPT)
    start = [7, 8, 9]
    written = greedy(model, start, 6, lambda: False)
    text = list(start)
    for _ in range(6):
        text.append(int(model(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
    assert written == text[3:]


@pytest.mark.parametrize(
    ("method", "family", "cls", "head", "why"),
    [
        (PREFIX, "distilbert", "DistilBertForSequenceClassification", NEW, "take no keys and values"),
        (PREFIX, "deberta_v2", "DebertaV2ForSequenceClassification", NEW, "take no keys and values"),
        (PREFIX, "bert", "BertForSequenceClassification", ANSWERS, "not for something else"),
        (PROMPT, "bert", "BertForSequenceClassification", ANSWERS, "not for something else"),
        (PROMPT, "bert", "BertForTokenClassification", TOKENS, "language models and classifiers of texts only"),
    ],
)
def test_what_takes_no_virtual_tokens_is_refused_with_the_reason(
    method: Method, family: str, cls: str, head: HeadPolicy, why: str
) -> None:
    row, model = METHODS[method.type], tiny(family, cls)
    for refuse in (lambda: row.check(model, row.settings(method), head), lambda: apply_method(model, method, head, 0)):
        with pytest.raises(JobError, match=why) as caught:
            refuse()
        assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.method.type")
        assert caught.value.hint


def test_others_are_told_to_pad_on_the_left_where_they_must() -> None:
    def found(family: str) -> list[str]:
        row = METHODS[PROMPT.type]
        return [f.kind for f in row.check(tiny(family, CLASSIFIERS[family]), row.settings(PROMPT), NEW)]

    assert found("llama") == ["PadOnTheLeft"]
    assert found("bert") == []


def test_scales_start_without_effect_and_lie_on_keys_values_and_the_ends_of_feed_forward_blocks() -> None:
    model = tiny("bert", CLASSIFIERS["bert"]).eval()
    ids = torch.randint(5, 40, (2, 6))
    before = model(input_ids=ids).logits
    scaled = apply_method(model, SCALES, NEW, seed=0).eval()
    assert torch.equal(scaled(input_ids=ids).logits, before)
    names = {name.split(".layer.")[1].split(".ia3_l")[0][2:] for name, _ in scaled.named_parameters() if "ia3" in name}
    assert names == {"attention.self.key", "attention.self.value", "output.dense"}
    whole = {name for name, p in scaled.named_parameters() if p.requires_grad and "ia3" not in name}
    assert whole
    assert all("modules_to_save" in name for name in whole)


def test_scales_do_not_decay_towards_zero() -> None:
    scaled = apply_method(tiny("bert", CLASSIFIERS["bert"]), SCALES, NEW, seed=0)
    groups = optimizer_for(scaled.to("cpu"), Training(weight_decay=0.1)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in scaled.named_parameters() if id(p) in decayed}
    assert names
    assert not any("ia3" in name for name in names)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (Ia3(target_modules=("kee",)), "spec.method.ia3.targetModules"),
        (Ia3(target_modules=("classifier",)), "spec.method.ia3.targetModules"),
        (Ia3(modules_to_save=("nothing",)), "spec.method.ia3.modulesToSave"),
    ],
)
def test_names_that_fit_no_layer_are_refused(settings: Ia3, field: str) -> None:
    with pytest.raises(JobError) as caught:
        apply_method(tiny("bert", CLASSIFIERS["bert"]), Method(type="ia3", ia3=settings), NEW, 0)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, field)


def test_a_prompt_starts_as_the_words_of_a_text(bert: Path) -> None:
    def prompt(text: str) -> Any:
        model = load_model(bert, NEW, labels=("ham", "spam"), seed=0, pad_id=0)
        settings = PromptTuning(virtual_tokens=5, init_text=text)
        words = model.get_input_embeddings().weight.detach().clone()
        return words, apply_method(model, Method(type="prompt-tuning", prompt_tuning=settings), NEW, 0)

    words, model = prompt("free prize")
    start = model.prompt_encoder["default"].embedding.weight
    assert all(any(torch.equal(row, word) for word in words) for row in start)
    assert torch.equal(start[0], start[2])
    assert torch.equal(start[1], start[3])
    assert not torch.equal(start[0], start[1])
    with pytest.raises(JobError, match="no tokens") as caught:
        prompt(" ")
    assert caught.value.field == "spec.method.promptTuning.initText"


@pytest.mark.parametrize(
    ("tokens", "length", "field"),
    [(20, 109, "spec.training.maxLength"), (121, None, "spec.method.promptTuning"), (20, 108, None)],
)
def test_rows_and_virtual_tokens_share_the_model_s_positions(
    tmp_path: Path, bert: Path, tokens: int, length: int | None, field: str | None
) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", mails(20, seed=1))
    spec = {
        "model": {"uri": bert.as_uri()},
        "data": {"train": {"uri": data.as_uri()}},
        "method": {"type": "prompt-tuning", "promptTuning": {"virtualTokens": tokens}},
        "training": {"maxSteps": 1} | ({"maxLength": length} if length else {}),
        "output": {"uri": (tmp_path / "out").as_uri()},
    }
    bench = Bench(tmp_path, spec)
    code = prepare.main(bench.config())
    said = json.loads((tmp_path / "termination").read_text())
    assert (said.get("problem") or {}).get("field") == field, said
    assert (code == 0) == (field is None)
