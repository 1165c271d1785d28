"""docs/design.md and CONTRIBUTING.md are true: what they name exists, and what the code cites stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("crds", "operator", "trainer", "tests", "benchmarks")
PACKAGES = ("crds/finetune_api", "operator/finetune_operator", "operator/finetune_cli", "trainer/finetune_trainer")
PAGES = ("docs/design.md", "CONTRIBUTING.md")


def rooms() -> set[str]:
    """Folders with modules of their own, of the four packages."""
    return {
        str(init.parent.relative_to(ROOT)) for package in PACKAGES for init in (ROOT / package).rglob("__init__.py")
    }


def test_every_invariant_that_is_cited_is_stated() -> None:
    stated = re.findall(r"^### (I\d+): ", (ROOT / "docs/design.md").read_text(), re.MULTILINE)
    assert stated == [f"I{number}" for number in range(1, 11)]
    cited = {
        name
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"(?:\(|invariants? |, )(I1?\d)\b", path.read_text())
    }
    assert cited == set(stated)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {
        path
        for path in re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:py|md|toml))`", text)
        if not path.startswith(("ckpt/", "generations/", "/", "operator/__init__"))
    }
    bases = [ROOT, ROOT / "crds", *(ROOT / package for package in PACKAGES), *(ROOT / room for room in rooms())]
    assert len(named) > 5
    assert [path for path in sorted(named) if not any((base / path).exists() for base in bases)] == []


def test_every_room_stands_in_the_table_of_rooms() -> None:
    table = re.findall(r"^\| `(\w+/finetune_[\w/]+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(rooms())
