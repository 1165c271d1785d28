"""What a template hides is counted and never learned; what it adds of its own is never learned; all that it shows whole
is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.batches.example import IGNORE, TokenExample
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.base import NothingToLearn
from finetune_trainer.tasks.chats.encode import EncodedChat, encode_chat
from finetune_trainer.tasks.chats.messages import chat_of
from finetune_trainer.tasks.ends import learned_ends
from support.chat_templates import (
    ALTERNATING,
    BRACKETS,
    CHATML,
    DEFAULT_SYSTEM,
    HEADERS,
    LINES,
    THINKING,
    write_tokenizer,
)


def tokenizer(folder: Path, template: str, eos: str = "<|im_end|>") -> Tokenizer:
    return load_tokenizer(write_tokenizer(folder, template, eos=eos))


def encode(t: Tokenizer, *messages: tuple[str, str]) -> EncodedChat:
    return encode_chat(t, chat_of([{"role": role, "content": text} for role, text in messages], None, t))


def learned(t: Tokenizer, found: EncodedChat) -> str:
    return t.decode([target for target in found.targets if target != IGNORE])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (DEFAULT_SYSTEM, "Hello!<|im_end|>Fine.<|im_end|>"),
        (CHATML, "Hello!<|im_end|>Fine.<|im_end|>"),
        (HEADERS, "Hello!<|eot|>Fine.<|eot|>"),
        (LINES, "Hello!<|im_end|>Fine.<|im_end|>"),
        (BRACKETS, " Hello!<|im_end|> Fine.<|im_end|>"),
        (THINKING, "Hello!<|im_end|><think>\n\n</think>\n\nFine.<|im_end|>"),
    ],
)
def test_of_a_chat_that_begins_with_the_assistant_only_its_own_text_is_learned(
    tmp_path: Path, template: str, expected: str
) -> None:
    t = tokenizer(tmp_path, template)
    found = encode(t, ("assistant", "Hello!"), ("user", "How are you?"), ("assistant", "Fine."))
    assert (learned(t, found), found.hidden) == (expected, 0)
    alone = learned(t, encode(t, ("assistant", "Hello!")))
    assert alone.removeprefix("<think>\n\n</think>\n\n") == expected[: expected.index(">") + 1]


def thought(what: str) -> str:
    return f"<think>\nabout {what}\n</think>\n\nthe {what}"


@pytest.mark.parametrize("turns", [2, 7])
def test_where_earlier_thoughts_are_dropped_the_last_turn_is_learned_whole(tmp_path: Path, turns: int) -> None:
    t = tokenizer(tmp_path, THINKING)
    asked = [(("user", f"q{n}"), ("assistant", thought(f"a{n}"))) for n in range(turns)]
    found = encode(t, *(message for pair in asked for message in pair))
    assert learned(t, found) == f"{thought(f'a{turns - 1}')}<|im_end|>"
    assert found.hidden == turns - 1


@pytest.mark.parametrize("turns", [2, 7])
def test_of_earlier_turns_those_without_thoughts_are_learned(tmp_path: Path, turns: int) -> None:
    t = tokenizer(tmp_path, THINKING)
    asked = [(("user", f"q{n}"), ("assistant", thought(f"a{n}") if n == 0 else f"a{n}")) for n in range(turns)]
    found = encode(t, *(message for pair in asked for message in pair))
    plain = "".join(f"a{n}<|im_end|>" for n in range(1, turns - 1))
    assert learned(t, found) == f"{plain}<think>\n\n</think>\n\na{turns - 1}<|im_end|>"
    assert found.hidden == 1


def test_white_space_that_the_template_changes_within_a_turn_hides_nothing(tmp_path: Path) -> None:
    t = tokenizer(tmp_path, THINKING)
    found = encode(t, ("user", "q"), ("assistant", "<think>short</think>the answer"))
    assert (learned(t, found), found.hidden) == ("<think>\nshort\n</think>\n\nthe answer<|im_end|>", 0)


def test_thoughts_in_a_field_of_their_own_are_shown_under_each_name(tmp_path: Path) -> None:
    t = tokenizer(tmp_path, THINKING)
    for name in ("reasoning_content", "thinking", "reasoning"):
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", name: "hm"},
        ]
        assert learned(t, encode_chat(t, chat_of(messages, None, t))) == "<think>\nhm\n</think>\n\na<|im_end|>"


def test_a_part_of_a_chat_that_the_template_refuses_does_not_refuse_the_chat(tmp_path: Path) -> None:
    pairs = "{% if messages | length is odd %}{{ raise_exception('an answer is missing') }}{% endif %}" + CHATML
    t = tokenizer(tmp_path, pairs)
    found = encode(t, ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"))
    assert (learned(t, found), found.hidden) == ("two<|im_end|>four<|im_end|>", 0)
    with pytest.raises(NothingToLearn, match="an answer is missing"):
        encode(t, ("user", "one"), ("assistant", "two"), ("user", "three"))


def test_whatever_a_template_stumbles_over_is_said_of_the_row(tmp_path: Path) -> None:
    t = tokenizer(tmp_path, "{{ messages[0]['content'] + 1 }}")
    with pytest.raises(NothingToLearn, match="chat template refuses the chat: can only concatenate str"):
        encode(t, ("user", "one"), ("assistant", "two"))


@pytest.mark.parametrize(
    ("template", "end"),
    [(CHATML, "<|im_end|>"), (HEADERS, "<|eot|>"), (LINES, "<|endoftext|>"), (ALTERNATING, "</turn>")],
)
def test_the_end_of_a_turn_is_the_token_that_was_learned_as_such(tmp_path: Path, template: str, end: str) -> None:
    t = tokenizer(tmp_path, template, eos="<|endoftext|>")
    found = encode(t, ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"))
    ends = learned_ends([TokenExample(found.ids, None, len(found.ids), found.targets)], t.special_ids)
    assert t.decode(ends) == end
