"""Only what the assistant writes is learned, whatever the chat template looks like, and exactly up to where generation
ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.batches.example import IGNORE, TokenExample
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn
from finetune_trainer.tasks.registry import task_for
from support.models import CHAT_TEMPLATE, tiny_llama

TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + PROMPT
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
REWRITING = (  # the last turn gets a block of thoughts that earlier ones have not: a chat is no prefix of a longer one
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if loop.last and m['role'] == 'assistant'"
    " %}<think></think>{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}" + PROMPT
)
HIDING = (
    "{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}" + TURN + "{% endif %}{% endfor %}" + PROMPT
)
STRICT = "{{ raise_exception('roles must alternate') }}"

CHAT = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "first"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "second"},
]
TASK = task_for("causal-lm")


def tokenizer(folder: Path, template: str | None = CHAT_TEMPLATE, bos: bool = False) -> Tokenizer:
    return load_tokenizer(tiny_llama(folder, template=template, bos=bos))


def encode(t: Tokenizer, messages: list[Any], longest: int = 1000) -> TokenExample:
    row = {"messages": messages}
    assert TASK.check_row(row, {"messages": "messages"}) is None
    (example,) = TASK.encode(row, JobFacts({"messages": "messages"}), t, longest, Draw())
    assert isinstance(example, TokenExample)
    return example


def learned(t: Tokenizer, example: TokenExample) -> str:
    assert all(label in (IGNORE, i) for label, i in zip(example.targets, example.input_ids, strict=True))
    return t.decode([label for label in example.targets if label != IGNORE])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHAT_TEMPLATE, "first<|im_end|>second<|im_end|>"),
        (MARKED, "first<|im_end|>second<|im_end|>"),
        (BRACKETS, " first<|im_end|> second<|im_end|>"),
        (REWRITING, "first<|im_end|><think></think>second<|im_end|>"),
    ],
    ids=["plain", "with generation markers", "without generation prompt", "rewriting"],
)
def test_every_turn_of_the_assistant_and_its_end_is_learned(tmp_path: Path, template: str, expected: str) -> None:
    t = tokenizer(tmp_path, template)
    messages = CHAT if template != BRACKETS else CHAT[1:]
    example = encode(t, messages)
    assert learned(t, example) == expected
    assert t.decode(example.input_ids) == t.render(messages), "the row is the whole chat as at inference"


def test_the_learned_part_begins_where_generation_does(tmp_path: Path) -> None:
    t = tokenizer(tmp_path)
    example = encode(t, CHAT)
    prompt = t.ids(t.render(CHAT[:-1], generation_prompt=True))
    assert example.input_ids[: len(prompt)] == prompt
    assert example.targets[len(prompt)] != IGNORE
    assert example.targets[len(prompt) - 1] == IGNORE


def test_a_users_turn_that_repeats_the_assistants_words_is_not_learned(tmp_path: Path) -> None:
    t = tokenizer(tmp_path)
    chat = [
        {"role": "user", "content": "yes"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "yes"},
    ]
    assert learned(t, encode(t, chat)) == "yes<|im_end|>"


def test_the_start_of_text_is_there_once(tmp_path: Path) -> None:
    t = tokenizer(tmp_path, BRACKETS, bos=True)
    assert encode(t, CHAT[1:]).input_ids.count(t.bos_id or -1) == 1
    row = {"prompt": "<|bos|>hi", "completion": "ho"}
    (example,) = TASK.encode(row, JobFacts({"prompt": "prompt", "completion": "completion"}), t, 100, Draw())
    assert example.input_ids.count(t.bos_id or -1) == 1


def test_a_completion_is_learned_to_its_end_and_its_prompt_is_not(tmp_path: Path) -> None:
    t = tokenizer(tmp_path)
    row = {"q": "2 + 2 =", "a": " 4"}
    (example,) = TASK.encode(row, JobFacts({"prompt": "q", "completion": "a"}), t, 100, Draw())
    assert t.decode(example.input_ids) == "2 + 2 = 4<|im_end|>"
    assert learned(t, example) == " 4<|im_end|>"
    assert example.losses == 3


def test_what_is_cut_is_cut_on_the_right_and_never_guessed(tmp_path: Path) -> None:
    t = tokenizer(tmp_path)
    whole = encode(t, CHAT)
    first = next(n for n, label in enumerate(whole.targets) if label != IGNORE)
    cut = encode(t, CHAT, first + 2)
    assert cut.input_ids == whole.input_ids[: first + 2]
    assert (learned(t, cut), cut.losses, cut.full_length) == ("fi", 2, whole.length)
    with pytest.raises(NothingToLearn, match=r"none of the first .* raise spec.training.maxLength"):
        encode(t, CHAT, first)


def test_a_turn_that_the_template_hides_is_counted_and_the_others_are_learned(tmp_path: Path) -> None:
    t = tokenizer(tmp_path, HIDING)
    example = encode(t, CHAT)
    assert (learned(t, example), example.hidden) == ("second<|im_end|>", 1)
    with pytest.raises(NothingToLearn, match="shows none of the assistant's 1 turns whole"):
        encode(t, [*CHAT[:3], {"role": "user", "content": "and?"}])


def test_a_template_that_refuses_a_chat_is_no_guess(tmp_path: Path) -> None:
    with pytest.raises(NothingToLearn, match="roles must alternate"):
        encode(tokenizer(tmp_path, STRICT), CHAT)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ("hello", "list of"),
        ([], "list of"),
        ([{"role": "user"}], "message 0"),
        ([{"role": "robot", "content": "x"}], "'robot'"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}], "nothing to learn"),
    ],
)
def test_what_is_no_chat_is_refused_with_the_place(messages: Any, why: str) -> None:
    found = TASK.check_row({"messages": messages}, {"messages": "messages"})
    assert found is not None
    assert why in found
