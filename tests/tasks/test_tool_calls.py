"""Calls of tools are learned as the template writes them, and the tools reach it; whatever form the data gives them
in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.batches.example import IGNORE, TokenExample
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn
from finetune_trainer.tasks.registry import task_for
from support.chat_templates import CHATML, TEXT_CALLS, THINKING, TOOLS, write_tokenizer

TASK = task_for("causal-lm")
ARGUMENTS = {"place": 'O"slo', "days": 2}
AS_TEXT = json.dumps(ARGUMENTS)
COLUMNS = {"messages": "m", "tools": "t"}


def encode(t: Tokenizer, messages: Any, tools: Any = None) -> TokenExample:
    row = {"m": messages, "t": tools}
    assert TASK.check_row(row, COLUMNS) is None
    (example,) = TASK.encode(row, JobFacts(COLUMNS), t, 10_000, Draw())
    assert isinstance(example, TokenExample)
    return example


def learned(t: Tokenizer, example: TokenExample) -> str:
    return t.decode([label for label in example.targets if label != IGNORE])


def chat(arguments: Any, **content: Any) -> list[dict[str, Any]]:
    call = {"id": None, "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return [
        {"role": "user", "content": "and tomorrow?", "tool_calls": None},
        {"role": "assistant", "tool_calls": [call], **content},
        {"role": "tool", "content": "rain", "tool_calls": []},
        {"role": "assistant", "content": "It will rain."},
    ]


@pytest.mark.parametrize("arguments", [ARGUMENTS, AS_TEXT], ids=["object", "text"])
@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}], ids=["null", "empty", "absent"])
@pytest.mark.parametrize(
    ("template", "call"),
    [
        (TOOLS, f'<call>\n{{"name": "weather", "arguments": {AS_TEXT}}}\n</call><|im_end|>'),
        (TEXT_CALLS, f"<call>weather\n{AS_TEXT}</call><|im_end|>"),
        (THINKING, f"\n<call>weather {AS_TEXT}</call><|im_end|>"),
    ],
    ids=["objects", "texts, where the content is none", "rewriting"],
)
def test_a_call_is_learned_whatever_stands_for_its_content(
    tmp_path: Path, template: str, call: str, content: dict[str, Any], arguments: Any
) -> None:
    t = load_tokenizer(write_tokenizer(tmp_path, template))
    example = encode(t, chat(arguments, **content))
    answer = "<think>\n\n</think>\n\nIt will rain." if template == THINKING else "It will rain."
    assert learned(t, example) == f"{call}{answer}<|im_end|>"
    assert example.hidden == 0
    assert "None" not in t.decode(example.input_ids)


def test_a_call_that_ends_the_chat_is_learned(tmp_path: Path) -> None:
    t = load_tokenizer(write_tokenizer(tmp_path, TOOLS))
    assert learned(t, encode(t, chat(ARGUMENTS, content=None)[:2])).endswith("</call><|im_end|>")


def test_what_is_said_beside_a_call_is_learned_with_it(tmp_path: Path) -> None:
    t = load_tokenizer(write_tokenizer(tmp_path, TOOLS))
    assert learned(t, encode(t, chat({}, content="Let me look."))).startswith("Let me look.\n<call>\n")


@pytest.mark.parametrize("form", [list, json.dumps], ids=["list", "text"])
def test_tools_reach_the_template(tmp_path: Path, form: Any) -> None:
    t = load_tokenizer(write_tokenizer(tmp_path, TOOLS))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    example = encode(t, chat({}), form([tool]))
    assert t.decode(example.input_ids).startswith(f"<|im_start|>system\nTools:\n{json.dumps(tool)}<|im_end|>\n")
    assert "Tools" not in learned(t, example)
    for nothing in (None, "", [], "[]", "null"):
        assert "Tools" not in t.decode(encode(t, chat({}), nothing).input_ids)


def test_a_call_that_the_template_does_not_show_is_hidden_and_the_answer_learned(tmp_path: Path) -> None:
    t = load_tokenizer(write_tokenizer(tmp_path, CHATML))
    example = encode(t, chat(ARGUMENTS, content=None))
    assert (learned(t, example), example.hidden) == ("It will rain.<|im_end|>", 1)
    with pytest.raises(NothingToLearn, match="none of the assistant's 1 turns"):
        encode(t, chat(ARGUMENTS, content=None)[:2])


def test_chats_and_tools_as_text_are_read(tmp_path: Path) -> None:
    t = load_tokenizer(write_tokenizer(tmp_path, TOOLS))
    messages = chat(ARGUMENTS)
    assert encode(t, json.dumps(messages)) == encode(t, messages)


@pytest.mark.parametrize(
    ("messages", "tools", "why"),
    [
        ([{"role": "user", "content": None}], None, "message 0: needs a role and a content"),
        ([{"role": "assistant", "content": None}], None, "message 0: needs a role and a content"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], None, "message 0: needs a role and a content"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {}}]}],
            None,
            "message 0: tool_calls must be a list of calls with a name",
        ),
        (
            [{"role": "assistant", "content": 3, "tool_calls": [{"name": "f"}]}],
            None,
            "message 0: its content must be a text",
        ),
        ([{"role": "user", "content": "x", "tool_calls": [{"name": "f"}]}], None, "nothing to learn"),
        ("[]", None, "must hold a list"),
        ([{"role": "assistant", "content": "x"}], "weather", "column 't' must hold a list of tools"),
        ([{"role": "assistant", "content": "x"}], [1], "column 't' must hold a list of tools"),
    ],
)
def test_what_is_no_call_is_refused_with_the_place(messages: Any, tools: Any, why: str) -> None:
    found = TASK.check_row({"m": messages, "t": tools}, COLUMNS)
    assert found is not None
    assert why in found
