"""A real language model on a small chat set: SmolLM2 picks up a help desk's manner by LoRA, and its adapter loads with
peft.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from examples import data

from .conftest import BUCKET, Place
from .storage import Storage

THINGS = "printer account mailbox calendar password phone laptop badge invoice projector licence desk".split()
VERBS = "reset move rename open close copy share print".split()
CLOSING = "Yours, the help desk."


def chats() -> list[dict[str, Any]]:
    """Each question about a thing and a verb, answered in the same manner; the order is fixed."""
    pairs = [(verb, thing) for verb in VERBS for thing in THINGS]
    return [
        {
            "messages": [
                {"role": "user", "content": f"How do I {verb} my {thing}?"},
                {"role": "assistant", "content": f"Open the page {thing.title()}, choose {verb.title()}. {CLOSING}"},
            ]
        }
        for verb, thing in pairs[::7] + [pair for i, pair in enumerate(pairs) if i % 7]
    ]


@pytest.fixture(scope="module")
def model(storage: Storage) -> Path:
    """s3://e2e/models/smollm2 and s3://e2e/desk/chats.jsonl; returns the model's folder."""
    try:
        folder = data.smollm2()
    except data.Unavailable as error:
        pytest.skip(str(error))
    storage.put_folder(BUCKET, "models/smollm2", folder)
    storage.put(BUCKET, "desk/chats.jsonl", "".join(json.dumps(row) + "\n" for row in chats()).encode())
    return folder


@pytest.mark.nightly
def test_smollm2_learns_the_manner_of_a_few_chats(place: Place, model: Path, tmp_path: Path) -> None:
    memory = {"requests": {"cpu": "500m", "memory": "1500Mi"}, "limits": {"memory": "4Gi"}}
    job = place.job(
        "smollm2",
        task="causal-lm",
        model__uri=f"s3://{BUCKET}/models/smollm2",
        data={
            "train": {"uri": f"s3://{BUCKET}/desk/*.jsonl"},
            "validation": {"fraction": 0.1},
            "columns": {"messages": "messages"},
        },
        method={"type": "lora", "lora": {"rank": 8, "alpha": 16}},
        training={"maxSteps": 20, "globalBatchSize": 8, "learningRate": 2e-3, "maxLength": 96},
        workers__resources=memory,
    )
    status = job.wait_succeeded(600)
    losses = [point["loss"] for point in status["history"] if point.get("loss") is not None]
    print(
        "smollm2:", json.dumps({"losses": [round(loss, 3) for loss in losses], "validation": status.get("evaluation")})
    )
    print("seconds:", json.dumps(status["attempts"][0]["seconds"]))
    assert status["resolved"]["trainableParameters"] < status["resolved"]["parameters"] / 50
    assert losses[-1] < losses[0] / 3

    folder = place.storage.download(BUCKET, place.output("smollm2"), tmp_path / "out")
    report = (folder / "report.html").read_text()
    before, after = (
        re.findall(rf'class="{when}">.*?<pre>(.*?)</pre>', report, re.DOTALL) for when in ("before", "after")
    )
    assert len(before) == len(after) > 0
    print(f"before: {html.unescape(before[0])!r}\nafter: {html.unescape(after[0])!r}")
    assert not any(CLOSING in text for text in before)
    assert all(CLOSING in text for text in after)
    assert CLOSING in answer(model, folder, "How do I paint my bicycle?")


def answer(model: Path, adapter: Path, question: str) -> str:
    """What the tuned model says, by transformers and peft alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    chat = [{"role": "user", "content": question}]
    given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        written = tuned.generate(**given, max_new_tokens=40, do_sample=False)
    return str(tokenizer.decode(written[0, given["input_ids"].shape[1] :], skip_special_tokens=True))
