"""Nothing in the trainer asks which method it is: none is named outside methods/, nor what only one of them needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune_trainer
from finetune_api.method import METHODS
from finetune_trainer.methods import METHODS as VALUES
from finetune_trainer.methods import adapter_files, identity_fields, packages

TRAINER = Path(finetune_trainer.__path__[0])

ALLOWED = {
    r"(torch|np)\.full\(": "makes a tensor, or an array",
    r'"flags", "Features"|builder\.info\.features|\["info"\]\["features"\]': "of a CPU, or columns of a data set",
    r"disk\.full\(|finetune_full": "a disk without room",
    r"queue\.Full\b": "a queue without room",
    r"peft_task|What peft calls": "a task's head says what it is called there",
    r'"transformers", "peft"\)\]|peft asks for it': "libraries that are imported anew as a whole",
}
"""What looks like a method's name and is none, with what it is."""


def lines(pattern: str) -> Iterator[str]:
    """Places outside the methods, as file:line, where the pattern stands and nothing allowed does."""
    for path in sorted(TRAINER.rglob("*.py")):
        place = path.relative_to(TRAINER)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            rest = re.sub("|".join(ALLOWED), "", line)
            if place.parts[0] != "methods" and re.search(pattern, rest):
                yield f"{place}:{number}: {line.strip()}"


def written(name: str) -> str:
    """A method as code names it: as a text, as the field of its settings, as their class."""
    field, kind = name.replace("-", "_"), name.title().replace("-", "")
    return rf"""["']{name}["']|\.{field}\b|\b{kind}\b|\b{field}\.METHOD\b"""


@pytest.mark.parametrize("name", METHODS)
def test_no_method_is_named_outside_the_methods(name: str) -> None:
    assert list(lines(written(name))) == []


@pytest.mark.parametrize("word", [*packages(), *adapter_files(), *identity_fields()])
def test_what_one_method_needs_is_named_by_its_value_only(word: str) -> None:
    assert list(lines(re.escape(word))) == []


@pytest.mark.parametrize("line", ['if method == "lora":', "config.method.freeze", "Lora()", "lora.METHOD"])
def test_the_search_finds_a_switch(line: str) -> None:
    assert any(re.search(written(name), line) for name in METHODS)


def test_every_method_of_the_contract_has_a_value() -> None:
    assert list(VALUES) == list(METHODS)
    for name, method in VALUES.items():
        assert method.info is METHODS[name]
        assert (method.adapter is not None and method.adapter.merge is not None) == method.info.merges
        assert (method.defaults is not None) == method.info.settings
