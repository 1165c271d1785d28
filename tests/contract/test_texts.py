"""Texts for people, Kubernetes' times, and the one form of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.forms import in_form, one_form
from finetune_api.text import clip, join, listed
from finetune_api.times import rfc3339, seconds

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_a_text_is_cut_with_a_sign_of_it() -> None:
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("message", "hint", "expected"),
    [
        ("It broke.", "Mend it.", "It broke. Mend it."),
        ("It broke", "Mend it.", "It broke. Mend it."),
        ("It broke", "", "It broke"),
        ("", "Mend it.", "Mend it."),
    ],
)
def test_a_message_and_what_to_do_are_one_text(message: str, hint: str, expected: str) -> None:
    assert join(message, hint) == expected


def test_names_are_listed_as_people_do() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"


@given(st.integers(0, 4_000_000_000))
def test_a_moment_survives(moment: int) -> None:
    assert seconds(rfc3339(moment)) == moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.5),
        ("1970-01-01T01:01:00+01:00", 60.0),
        ("1970-01-01T00:01:00", None),
        ("soon", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_junk_for_a_moment_is_none(text: str | None, expected: float | None) -> None:
    assert seconds(text) == expected


def test_a_moment_is_told_to_the_second() -> None:
    assert rfc3339(60.9) == "1970-01-01T00:01:00Z"


def test_names_that_people_cannot_tell_apart_are_equal() -> None:
    assert one_form(DECOMPOSED) == one_form(COMPOSED) == COMPOSED
    assert one_form("plain") == "plain"


def test_the_columns_of_a_row_are_found_in_any_form() -> None:
    assert in_form({"a": 1, "b": 2, "c": 3}, ["a", "b"]) == {"a": 1, "b": 2}
    assert in_form({DECOMPOSED: 1, "b": 2}, [COMPOSED, "b"]) == {COMPOSED: 1, "b": 2}
    assert in_form({"b": 2}, [COMPOSED, "b"]) == {"b": 2}
