"""Jobs that get in each other's way by where they write, found among all others."""

from __future__ import annotations

import pytest

from finetune_operator.store.output_index import OutputIndex

HERE = "http://s3:9000 s3://b/out/x"


@pytest.mark.parametrize(
    ("place", "meets"),
    [
        ("http://s3:9000 s3://b/out/x", True),
        ("http://s3:9000 s3://b/out", True),
        ("http://s3:9000 s3://b", True),
        ("http://s3:9000 s3://b/out/x/deep/er", True),
        ("http://s3:9000 s3://b/out/xy", False),
        ("http://s3:9000 s3://b/out/y", False),
        ("http://s3:9000 s3://b2/out/x", False),
        ("http://other:9000 s3://b/out/x", False),
        ("http://s3:9000 ", False),
    ],
)
def test_places_meet_where_one_holds_the_other_whichever_came_first(place: str, meets: bool) -> None:
    for first, second in ((HERE, place), (place, HERE)):
        outputs: OutputIndex[str] = OutputIndex()
        outputs.add("a", first)
        outputs.add("b", second)
        assert ("b" in outputs.sharing(first)) is meets
        assert ("a" in outputs.sharing(second)) is meets


def test_specs_without_an_output_meet_nobody() -> None:
    outputs: OutputIndex[str] = OutputIndex()
    outputs.add("a", " ")
    outputs.add("b", " ")
    assert outputs.sharing(" ") == set()


def test_what_is_removed_leaves_nothing_behind() -> None:
    outputs: OutputIndex[str] = OutputIndex()
    outputs.add("a", HERE)
    outputs.add("b", HERE)
    outputs.remove("a", HERE)
    assert outputs.sharing("http://s3:9000 s3://b") == {"b"}
    outputs.remove("b", HERE)
    assert (dict(outputs._at), dict(outputs._below)) == ({}, {})
