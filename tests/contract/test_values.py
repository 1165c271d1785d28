"""Numbers and lists in a row's field, as every format has them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from finetune_api.values import listed_in, number_in


@pytest.mark.parametrize(("value", "number"), [(3, 3.0), (-0.5, -0.5), (" 2.5 ", 2.5), ("1e3", 1000.0)])
def test_a_number_is_one_as_text_too(value: Any, number: float) -> None:
    assert number_in(value) == number


@pytest.mark.parametrize("value", [None, True, [1], {}, "", "two", 10**400])
def test_what_is_no_number(value: Any) -> None:
    assert math.isnan(number_in(value))


@pytest.mark.parametrize(("value", "elements"), [([1, "a"], [1, "a"]), (' ["a", "b"]', ["a", "b"]), ("[]", [])])
def test_a_list_is_one_as_json_text_too(value: Any, elements: list[Any]) -> None:
    assert listed_in(value) == elements


@pytest.mark.parametrize("value", [None, 1, "a, b", '{"a": 1}', "[broken", "[" * 100_000, {"a": 1}])
def test_what_is_no_list(value: Any) -> None:
    assert listed_in(value) is None
