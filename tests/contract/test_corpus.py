"""The golden corpus: the models and a real API server give every manifest the same verdict, and each refusal helps.

Each file of invalid/ says in its first lines what both must say: `# field:` the field to blame, `# says:` words of the
message. A file that only one of the two refuses fails here: such a difference is a bug of the contract.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import judges
from support.control_plane import ControlPlane

HERE = Path(__file__).parent
VALID = sorted((HERE / "valid").glob("*.yaml"))
INVALID = sorted((HERE / "invalid").glob("*.yaml"))
ADVICE = re.compile(
    r"must|should|required|supported values|unknown field|no such field|remove|set |choose|lower|raise|keep|only|go "
    r"together|go into|needs|duplicate|too many|too long|not valid|may not|at most|take no values|are whole|compare"
    r"|move|make|map |upload|text-classification has",
    re.IGNORECASE,
)


def expectations(path: Path) -> tuple[str, str]:
    found = dict(re.findall(r"^# (field|says): (.+)$", path.read_text(), re.MULTILINE))
    return found["field"], found.get("says", "")


def check_refusal(path: Path, complaints: judges.Complaints) -> None:
    field, says = expectations(path)
    assert complaints, f"{path.name} was accepted"
    blamed = [
        message for where, message in complaints if where == field or where.startswith((f"{field}.", f"{field}["))
    ]
    assert blamed, f"{path.name}: nobody blames {field}: {complaints}"
    assert any(says.casefold() in message.casefold() for message in blamed), (
        f"{path.name}: nobody says {says!r}: {blamed}"
    )
    assert all(ADVICE.search(message) for message in blamed), f"{path.name}: no advice: {blamed}"


def test_the_corpus_is_large_enough() -> None:
    assert len(VALID) >= 25
    assert len(INVALID) >= 60


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_the_models_accept(path: Path) -> None:
    assert judges.models(judges.read(path)) == []


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_the_models_refuse_and_say_what_to_do(path: Path) -> None:
    check_refusal(path, judges.models(judges.read(path)))


@pytest.mark.apiserver
@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_the_api_server_accepts(path: Path, judge: ControlPlane) -> None:
    complaints, _ = judges.server(judge, judges.read(path))
    assert complaints == []


@pytest.mark.apiserver
@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_the_api_server_refuses_and_says_what_to_do(path: Path, judge: ControlPlane) -> None:
    complaints, _ = judges.server(judge, judges.read(path))
    check_refusal(path, complaints)
