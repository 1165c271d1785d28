"""What another version stored is read part by part: what does not fit is left out and named, the rest stays."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.base import Model, Rule
from finetune_api.lenient import parse_lenient
from finetune_api.status import ATTEMPTS, Status

MOMENT = "2026-01-31T12:00:00Z"
GOOD: dict[str, Any] = {
    "phase": "Running",
    "attempt": 3,
    "startTime": MOMENT,
    "conditions": [
        {"type": "Validated", "status": "True", "reason": "Passed", "lastTransitionTime": MOMENT},
        {"type": "Running", "status": "True", "reason": "Running", "lastTransitionTime": MOMENT},
    ],
    "attempts": [{"number": n, "startTime": MOMENT} for n in (3, 2, 1)],
    "progress": {"step": 7, "totalSteps": 10},
}


def condition(**fields: Any) -> dict[str, Any]:
    return {**GOOD["conditions"][0], **fields}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"phase": "Paused"}, "phase"),
        ({"startTime": "yesterday"}, "startTime"),
        ({"conditions": [condition(type="Certified" * 9), *GOOD["conditions"]]}, "conditions.0.type"),
        ({"conditions": [condition(status="Maybe"), *GOOD["conditions"]]}, "conditions.0.status"),
        ({"conditions": [*GOOD["conditions"], condition()]}, "conditions"),
        ({"progress": {"step": "seven"}}, "progress.step"),
        ({"progress": {"step": 10**40}}, "progress.step"),
        ({"test": {"f1": "good"}}, "test.f1"),
        ({"attempts": "three"}, "attempts"),
        ({"goodput": 7}, "goodput"),
        ({"resolved": {"totalSteps": -1, "epochs": 3.0}}, "resolved.totalSteps"),
        ({"best": {"step": 1, "metric": "f1"}}, "best"),
        ({"novelty": 1}, "novelty"),
        ({"message": "x" * 2000}, "message"),
    ],
)
def test_what_does_not_fit_is_left_out_by_itself(change: dict[str, Any], named: str) -> None:
    value, left_out = parse_lenient(Status, GOOD | change)
    assert any(name.startswith(named) for name in left_out), left_out
    kept = value.to_json()
    for name in GOOD.keys() - change.keys():
        assert kept[name] == parse_lenient(Status, GOOD)[0].to_json()[name]
    if "resolved" in change:
        assert kept["resolved"] == {"epochs": 3.0}


def test_the_conditions_that_are_known_stay_beside_one_that_is_not() -> None:
    value, _ = parse_lenient(
        Status, GOOD | {"conditions": [condition(status="Maybe", type="New"), *GOOD["conditions"]]}
    )
    assert [c.type for c in value.conditions] == ["Validated", "Running"]


def test_a_list_that_may_be_longer_by_now_is_cut_and_not_lost() -> None:
    entries = [{"number": n, "startTime": MOMENT} for n in range(40, 0, -1)]
    value, left_out = parse_lenient(Status, GOOD | {"attempts": entries})
    assert [a.number for a in value.attempts] == list(range(40, 40 - ATTEMPTS, -1))
    assert left_out == ["attempts"]


@pytest.mark.parametrize(
    "junk",
    [
        None,
        [],
        "x",
        7,
        object(),
        {"attempt": object()},
        {"conditions": [[[]]]},
        {"attempts": [None, 1, {}]},
        {"history": {"a": 1}},
    ],
)
def test_junk_is_read_as_nothing(junk: Any) -> None:
    value, left_out = parse_lenient(Status, junk)
    assert value == Status()
    assert left_out


def test_a_status_of_this_version_is_read_whole() -> None:
    value, left_out = parse_lenient(Status, GOOD)
    assert left_out == []
    assert (value.attempt, len(value.attempts), len(value.conditions)) == (3, 3, 2)


class Pair(Model):
    """A model with a rule that no field alone is to blame for."""

    a: int = 0
    b: int = 0
    RULES = (Rule("self.a == self.b", "must be equal", lambda pair: pair.a == pair.b),)


def test_a_whole_that_cannot_be_mended_by_leaving_parts_out_is_read_as_nothing() -> None:
    value, left_out = parse_lenient(Pair, {"a": 1, "b": 2})
    assert value == Pair()
    assert left_out[-1] == "(top)"
