"""docs/tasks.md tells of every task, family and method of the tables, and of an example for each task."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from finetune_api.families import FAMILIES
from finetune_api.method import METHODS
from finetune_api.tasks import TASKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_its_part_with_roles_metrics_and_an_example(task: str) -> None:
    part = PAGE.partition(f"\n## {task}\n")[2].partition("\n## ")[0]
    info = TASKS[task]
    assert all(f"| `{role.name}` |" in part for role in info.roles)
    assert all(f"`{name}`" in part for name in info.metrics)
    assert {name for name in METHODS if f"`{name}`" in part} == {m.name for m in METHODS.values() if m.fits(info)}
    links = re.findall(r"\.\./(examples/[\w.-]+)\)", part)
    assert links
    assert all(f"task: {task}\n" in (ROOT / link).read_text() for link in links)


def test_the_matrix_marks_what_the_tables_claim() -> None:
    header, *lines = re.findall(r"^\| .*\|$", PAGE.partition("## Models, tasks and methods")[2], re.MULTILINE)
    tasks = [cell.strip() for cell in header.split("|")[2:-1]]
    marked = {
        (task, line.split(" (")[0].lstrip("| "))
        for line in lines
        for task, cell in zip(tasks, line.split("|")[2:-1], strict=True)
        if "●" in cell
    }
    assert marked == {(task.name, family.name) for task in TASKS.values() for family in task.families}
    assert len(lines) == len(FAMILIES)


def test_the_page_is_made_from_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "crds"))
    sys.modules.pop("tasks_page", None)
    from tasks_page import tasks_page

    assert tasks_page() == PAGE
