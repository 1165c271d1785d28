"""Long chats are encoded in linear time, with the masks that locating every turn by itself gives."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.chats import turns
from finetune_trainer.tasks.chats.encode import encode_chat
from finetune_trainer.tasks.chats.messages import chat_of
from support import chat_templates, one_by_one
from support.chat_templates import CALLING, PLAIN, RUNNING_ON, SHOUTING, STRICT, chat, write_tokenizer


def same(tokenizer: Tokenizer, messages: list[dict[str, Any]]) -> None:
    ids, targets = one_by_one.encode(tokenizer, messages)
    found = encode_chat(tokenizer, chat_of(messages, None, tokenizer))
    assert found.ids == ids
    assert tokenizer.decode([t for t in found.targets if t >= 0]) == tokenizer.decode([t for t in targets if t >= 0])
    assert found.targets == targets
    assert found.hidden == 0


@pytest.mark.parametrize("name", PLAIN)
def test_masks_are_those_of_turns_located_one_by_one(tmp_path: Path, name: str) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, PLAIN[name], eos="</s>"))
    rng = random.Random(7)
    for n in range(60):
        same(tokenizer, chat(rng, 1 + n % 12, strict=name in STRICT))


def test_a_number_of_the_template_and_one_of_the_turn_are_told_apart(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, RUNNING_ON, eos="</s>"))
    rng = random.Random(9)
    for n in range(40):
        same(tokenizer, chat(rng, 4 + n % 12, strict=True))


def test_a_template_that_alters_what_others_wrote_is_slow_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns._warn_once_of_slowness.cache_clear()
    said = []
    for name, template in (("chatml", PLAIN["chatml"]), ("shouting", SHOUTING)):
        tokenizer = load_tokenizer(write_tokenizer(tmp_path / name, template))
        for n in range(2):
            same(tokenizer, chat(random.Random(n), 30, strict=True))
        said.append([r.message for r in caplog.records if "slow for long chats" in r.message])
    assert said[0] == []
    assert len(said[1]) == 1


@pytest.mark.parametrize("name", CALLING)
def test_so_it_is_between_calls_of_tools(tmp_path: Path, name: str) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, PLAIN[name]))
    rng = random.Random(8)
    tried = 0
    while tried < 40:
        messages = chat(rng, 1 + tried % 9, calls=True)
        if all(m["content"] for m in messages):  # the oracle knows no turns without a content
            if name == "thinking" and any("tool_calls" in m for m in messages):
                break  # and none that go on behind their content where a template is no prefix of itself
            same(tokenizer, messages)
            tried += 1


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_rendered_grows_as_the_chat_does(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, PLAIN[name]))
    rendered = 0
    render = Tokenizer.render

    def counted(self: Tokenizer, messages: Any, *args: Any, **kwargs: Any) -> str:
        nonlocal rendered
        rendered += len(messages)
        return render(self, messages, *args, **kwargs)

    monkeypatch.setattr(Tokenizer, "render", counted)
    costs = []
    for asked in (50, 200):
        rng = random.Random(3)
        messages = []
        for n in range(asked):
            messages.append({"role": "user", "content": chat_templates.text(rng)})
            if name in CALLING and n % 2:
                key = "".join(rng.choices("abcdefgh", k=9))
                call = {"id": key, "function": {"name": "weather", "arguments": {"place": f"town {n}", "day": n}}}
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
                messages.append({"role": "tool", "content": f"rain {n}", "tool_call_id": key, "name": key[:5]})
            for _ in range(1 if name in (*STRICT, "thinking") or n % 3 else 2):
                messages.append({"role": "assistant", "content": chat_templates.text(rng)})
        rendered = 0
        found = encode_chat(tokenizer, chat_of(messages, None, tokenizer))
        assert found.hidden == 0
        costs.append(rendered / len(messages))
    assert costs[1] < 1.2 * costs[0], "messages rendered for each message of the chat"
    assert costs[1] < 15
