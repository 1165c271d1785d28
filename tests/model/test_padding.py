"""A row's answer is its own: it does not hang on its neighbours, on how rows are cut into micro-batches, or on a pad
id.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import Reason
from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import ClassExample
from finetune_trainer.model.load import load_model
from finetune_trainer.model.pads import pad_id
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.families import edit, tiny_gpt2, tiny_roberta
from support.models import mails, tiny_bert, tiny_llama, write_jsonl

TEXTS = ("winner", "meeting report lunch project review", "<|im_end|> free<|im_end|>", "a<|pad|>")
IN_CONFIG = {"other": 1, "none": None, "minus one": -1, "beyond": 5000, "same": 4}


def answers(folder: Path, *, together: bool) -> torch.Tensor:
    tokenizer = load_tokenizer(folder)
    model = load_model(
        folder, task_for("text-classification").head, labels=("a", "b"), seed=1, pad_id=tokenizer.pad_id
    ).eval()
    rows = [ClassExample(tokenizer.encode(text, None, 64)[0], None, 1, label=0) for text in TEXTS]
    cut = [rows] if together else [[row] for row in rows]
    with torch.inference_mode():
        return torch.cat([model(**collate(part, tokenizer.pad_id, 64).inputs).logits for part in cut])


@pytest.mark.parametrize("in_config", IN_CONFIG)
@pytest.mark.parametrize("pad", [True, False], ids=["own pad token", "no pad token"])
def test_a_decoder_classifies_a_row_alike_alone_and_among_longer_ones(
    tmp_path: Path, in_config: str, pad: bool
) -> None:
    folder = tiny_llama(tmp_path / "model", pad=True)
    if not pad:
        edit(folder / "tokenizer_config.json", pad_token=None)
    edit(folder / "config.json", pad_token_id=IN_CONFIG[in_config])
    assert torch.allclose(answers(folder, together=True), answers(folder, together=False), atol=1e-5)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_roberta, tiny_bert])
def test_so_do_other_families(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path / "model")
    assert torch.allclose(answers(folder, together=True), answers(folder, together=False), atol=1e-5)


def test_what_is_exported_names_the_pad_id_that_rows_were_told_from_padding_by(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_llama(tmp_path / "model")
    edit(folder / "config.json", pad_token_id=1)
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1))
    bench = Bench(
        tmp_path,
        {
            "task": "text-classification",
            "model": {"uri": folder.as_uri()},
            "data": {"train": {"uri": train.as_uri()}},
            "training": {"maxSteps": 2, "globalBatchSize": 8, "maxLength": 64},
            "output": {"uri": (tmp_path / "out").as_uri()},
        },
    )
    bench.prepare()
    bench.attempt()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 4
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        together = model(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "config", "eos", "expected"),
    [
        (4, {"pad_token_id": 1, "vocab_size": 10}, 2, 4),
        (None, {"pad_token_id": 1, "vocab_size": 10}, 2, 1),
        (None, {"pad_token_id": -1, "vocab_size": 10}, 2, 2),
        (10, {"pad_token_id": None, "vocab_size": 10}, 2, 2),
        (None, {"text_config": {"pad_token_id": 3, "vocab_size": 10}}, 2, 3),
        (None, {}, None, 0),
    ],
)
def test_the_pad_id_is_the_first_that_the_model_has_an_embedding_of(
    own: int | None, config: dict[str, Any], eos: int | None, expected: int
) -> None:
    assert pad_id(own, config, eos) == expected


def test_a_language_models_end_of_text_keeps_learning_where_it_also_pads(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model", pad=False)
    edit(folder / "config.json", pad_token_id=None)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_id == tokenizer.eos_id == 2
    model = load_model(folder, task_for("causal-lm").head, labels=None, seed=0, pad_id=tokenizer.pad_id)
    assert model.get_input_embeddings().padding_idx is None


def test_a_pair_is_told_apart_only_where_the_model_can(tmp_path: Path) -> None:
    roberta, bert = tiny_roberta(tmp_path / "roberta"), tiny_bert(tmp_path / "bert")
    assert load_tokenizer(bert).encode("a", "b", 9)[1] == [0, 0, 0, 1, 1]
    assert load_tokenizer(roberta).encode("a", "b", 9)[1] is None
    rows = [{"text": row["text"], "other": "the report", "label": row["label"]} for row in mails(40, seed=1)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    bench = Bench(
        tmp_path,
        {
            "task": "text-classification",
            "model": {"uri": roberta.as_uri()},
            "data": {"train": {"uri": train.as_uri()}, "columns": {"text": "text", "textPair": "other"}},
            "training": {"maxSteps": 2, "globalBatchSize": 8},
            "output": {"uri": (tmp_path / "out").as_uri()},
        },
    )
    bench.prepare()
    assert bench.attempt().output is not None


def test_a_classifier_that_reads_its_answer_off_the_padding_is_refused(tmp_path: Path) -> None:
    from finetune_api.exits import JobError
    from finetune_trainer.model.facts import architecture

    with pytest.raises(JobError) as caught:
        architecture({"model_type": "xlnet"}, task_for("text-classification").head)
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL
    assert "last position" in caught.value.message
