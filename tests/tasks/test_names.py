"""Nothing in the trainer asks which task it is: no task's name stands outside the room of tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune_trainer
from finetune_api.tasks import TASKS

TRAINER = Path(finetune_trainer.__path__[0])


def mentions(name: str, folder: Path) -> Iterator[str]:
    """Lines that write the name as the contract or as an identifier does."""
    written = re.compile(re.escape(name).replace(r"\-", "[-_]"))
    for path in sorted(folder.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if written.search(line):
                yield f"{path.relative_to(folder)}:{number}"


@pytest.mark.parametrize("name", TASKS)
def test_no_task_is_named_outside_the_tasks(name: str) -> None:
    found = list(mentions(name, TRAINER))
    assert any(place.startswith("tasks/") for place in found), "the search finds what is there"
    assert [place for place in found if not place.startswith("tasks/")] == []
