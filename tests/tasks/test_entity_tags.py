"""Tags of every scheme mark the entities that conlleval and seqeval find in them, and are written again as BIO2."""

from __future__ import annotations

import random

import pytest

from finetune_trainer.tasks.entities.tags import Span, outputs_for, spans_of, tags_of, tags_problem, types_of
from support import seqeval

TYPES = ("PER", "LOC", "B-cell")
LETTERS = {"IOB": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
AS_IOBES = str.maketrans("LUMW", "ESIS")


def random_tags(rng: random.Random, letters: str, count: int) -> list[str]:
    """Whatever tags in whatever order: right ones and wrong ones."""
    return [rng.choice(["O", *(f"{rng.choice(letters)}-{rng.choice(TYPES)}" for _ in range(2))]) for _ in range(count)]


@pytest.mark.parametrize("scheme", LETTERS)
def test_entities_are_those_of_conlleval(scheme: str) -> None:
    rng = random.Random(3)
    for _ in range(1000):
        tags = random_tags(rng, LETTERS[scheme], rng.randint(0, 14))
        known = [tag[0].translate(AS_IOBES) + tag[1:] for tag in tags]
        found = spans_of(tags)
        assert [(s.kind, s.first, s.last - 1) for s in found] == seqeval.entities([known])
        assert spans_of(tags_of(found, len(tags))) == found, "BIO2 says the same"


SPANS = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(4, 7, "LOC")]


@pytest.mark.parametrize(
    "tags",
    [
        "I-PER I-PER B-PER O I-LOC I-LOC I-LOC",  # IOB1: B only where an entity of its type goes before
        "B-PER I-PER B-PER O B-LOC I-LOC I-LOC",
        "B-PER E-PER S-PER O B-LOC I-LOC E-LOC",
        "B-PER L-PER U-PER O B-LOC I-LOC L-LOC",
        "B-PER E-PER S-PER O B-LOC M-LOC E-LOC",
        "B-PER L-PER W-PER O B-LOC M-LOC L-LOC",
    ],
    ids=["IOB1", "IOB2", "IOBES", "BILOU", "BMES", "BMLW"],
)
def test_schemes_say_the_same(tags: str) -> None:
    assert spans_of(tags.split()) == SPANS
    assert tags_of(SPANS, 7) == "B-PER I-PER B-PER O B-LOC I-LOC I-LOC".split()


def test_entities_without_a_type_have_one_name() -> None:
    assert spans_of(["B", "I", "O", "B"]) == [Span(0, 2, "ENTITY"), Span(3, 4, "ENTITY")]


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ("O B-PER PER", "tag 2 is 'PER', without a prefix, beside tags with one ('B-PER')"),
        ("O B-PER X-PER", "tag 2 is 'X-PER', without a prefix"),
        ("B-PER B", "tag 1 is 'B', without a prefix"),
        ("B- O", "tag 0 is 'B-', which names no type; write it as B-TYPE"),
        ("o B-PER", "tag 0 is 'o', without a prefix"),
    ],
)
def test_tags_of_no_scheme_are_named(tags: str, says: str) -> None:
    assert says in (tags_problem(tags.split()) or "")


@pytest.mark.parametrize("tags", ["", "O O", "B I O", "NOUN VERB", "N O V S L", "B-PER E-LOC S-X O", "B-a-b I-a-b"])
def test_tags_that_can_be_read_are_left_in_peace(tags: str) -> None:
    assert tags_problem(tags.split()) is None


def test_outputs_name_their_types() -> None:
    assert outputs_for(["X", "Y"]) == ("O", "B-X", "I-X", "B-Y", "I-Y")
    assert types_of(("I-Y", "B-Y", "O", "I-X", "B-X")) == ("Y", "X")
    for plain in (("NOUN", "VERB"), ("O", "B-X"), ("B-X", "I-X"), ("O",), ("O", "B-X", "I-X", "NOUN")):
        assert types_of(plain) is None
