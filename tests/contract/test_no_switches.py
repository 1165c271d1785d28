"""No task or method is named outside the tables: who needs to know something about one reads its row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import finetune_api
import finetune_cli
import finetune_operator
from finetune_api.method import METHODS
from finetune_api.tasks import TASKS

PACKAGES = (finetune_api, finetune_operator, finetune_cli)
TABLES = {"finetune_api/tasks.py", "finetune_api/method.py"}
ALLOWED = {
    ("finetune_api/tuning.py", "lora"): "the settings of a method are a field of the spec",
    ("finetune_api/tuning.py", "freeze"): "the settings of a method are a field of the spec",
    ("finetune_api/tuning.py", "features"): "the settings of a method are a field of the spec",
    ("finetune_api/tuning.py", "setfit"): "the settings of a method are a field of the spec",
    ("finetune_api/tuning.py", "ia3"): "the settings of a method are a field of the spec",
    ("finetune_api/tuning.py", "prompt-tuning"): "the settings of a method are a field of the spec",
    ("finetune_api/tuning.py", "prefix-tuning"): "the settings of a method are a field of the spec",
    ("finetune_api/exits.py", "lora"): "a hint recommends it",
    ("finetune_cli/init/ways.py", "lora"): "the manifest that it writes proposes it",
    ("finetune_operator/__main__.py", "freeze"): "gc.freeze() is Python's",
}
PLAIN_WORDS = {"full"}
"""Names that are English words too: of interest where they are a text of their own or stand before a colon."""


def named(source: str) -> Iterator[str]:
    """The tasks and methods that code names, in texts or as fields; docstrings and comments may."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            for name in (*TASKS, *METHODS):
                pattern = rf"^{name}$|\b{name}:" if name in PLAIN_WORDS else rf"(?<![\w-]){re.escape(name)}(?![\w-])"
                if re.search(pattern, node.value):
                    yield name
        names = {ast.Attribute: "attr", ast.Name: "id", ast.keyword: "arg", ast.arg: "arg"}
        if type(node) in names and (name := getattr(node, names[type(node)])) in {*METHODS} - PLAIN_WORDS:
            yield name


def test_no_task_or_method_is_named_outside_the_tables() -> None:
    found: set[tuple[str, str]] = set()
    for package in PACKAGES:
        folder = Path(str(package.__file__)).parent
        for path in folder.rglob("*.py"):
            where = path.relative_to(folder.parent).as_posix()
            if where not in TABLES:
                found |= {(where, name) for name in named(path.read_text())}
    assert found == set(ALLOWED)


def test_a_switch_is_found() -> None:
    assert [*named('"a text"\nif method.type == "lora": ...')] == ["lora"]
    assert [*named('x = spec.task == "causal-lm"')] == ["causal-lm"]
    assert [*named('x = "full" in kinds')] == ["full"]
    assert [*named("x = method.freeze")] == ["freeze"]
    assert [*named('def f(x: int) -> str:\n    "Only lora."\n    return "the full model"')] == []
