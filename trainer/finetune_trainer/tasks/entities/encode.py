"""A row as windows of tokens: each word is learned and judged once, at its first token, where it has most context.

Tokens are matched with words by their place in the text, so that a word that the tokenizer turns into nothing shifts no
tag. What is cut where depends on lengths alone, never on tags.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.tagged import TaggedExample, TaggedRow
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import NothingToLearn
from finetune_trainer.tasks.entities.rows import Passage
from finetune_trainer.tasks.entities.tags import OUTSIDE, Span, tags_of, types_of
from finetune_trainer.tasks.windows import windows

SHARED = 4
"""Neighbouring windows share one token in so many."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Words `first` to `last` (exclusive), mostly one, that are told apart at the token at `position`."""

    position: int
    first: int
    last: int


def encode(said: Passage, labels: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[TaggedExample]:
    """The row's windows; `labels` are the model's outputs. Raises NothingToLearn for a row without a word."""
    ids, units = tokens_of(said, tokenizer)
    if not units:
        raise NothingToLearn("the row has no word that the tokenizer knows; write some, or leave the row out")
    before, after = tokenizer.around()
    room = max_length - len(before) - len(after)
    if room < 1:
        raise NothingToLearn(
            f"maxLength {max_length} leaves no room for a word beside the tokens that the tokenizer adds; raise"
            " spec.training.maxLength"
        )
    positions = [unit.position for unit in units]
    pieces = [
        (window, range(bisect_left(positions, window.first), bisect_left(positions, window.last)))
        for window in windows(len(ids), room, room // SHARED)
    ]
    pieces = [(window, own) for window, own in pieces if own]
    row, numbers = _truth(said, units, labels, parts=len(pieces))
    examples = []
    for number, (window, own) in enumerate(pieces):
        tokens = [*before, *ids[window.start : window.end], *after]
        targets = [IGNORE] * len(tokens)
        for n in own:
            targets[len(before) + positions[n] - window.start] = numbers[n]
        hidden = 0 if number else len(row.lost_spans) or len(row.lost_tags)
        examples.append(TaggedExample(tokens, None, len(tokens), targets, row, own[0], hidden=hidden))
    return examples


def tokens_of(said: Passage, tokenizer: Tokenizer) -> tuple[list[int], list[Unit]]:
    """The text's ids without added tokens, and its units, in the text's order."""
    ids, offsets = tokenizer.with_offsets(said.text)
    places = [(n, place) for n, place in enumerate(said.words) if place[0] < place[1]]
    starts, ends = [start for _, (start, _) in places], [end for _, (_, end) in places]
    units: list[Unit] = []
    free = 0  # the first of the words that no token has touched yet
    for position, (start, end) in enumerate(offsets):
        while start < end and said.text[start].isspace():
            start += 1
        if start >= end:
            continue
        first = max(bisect_left(ends, start + 1), free)
        last = bisect_left(starts, end)
        if first < last:
            units.append(Unit(position, places[first][0], places[last - 1][0] + 1))
            free = last
    return ids, units


def _truth(said: Passage, units: Sequence[Unit], labels: Sequence[str], parts: int) -> tuple[TaggedRow, list[int]]:
    """What the row's units are, for the tally, and as numbers of outputs."""
    outputs, types = {label: n for n, label in enumerate(labels)}, types_of(labels)
    if types is None:
        tags = said.tags or (OUTSIDE,) * len(said.words)
        first_words = {unit.first for unit in units}
        lost_tags = [outputs[tags[word]] for word in range(len(said.words)) if word not in first_words and said.tags]
        numbers = [outputs.get(tags[unit.first], 0) for unit in units]
        return TaggedRow(len(units), parts, lost_tags=tuple(lost_tags)), numbers
    seen = {word for unit in units for word in range(unit.first, unit.last)}
    word_tags = tags_of(said.spans, len(said.words))
    lost_tags = [outputs[tag] for word, tag in enumerate(word_tags) if tag != OUTSIDE and word not in seen]
    spans, lost_spans, free = list[Span](), list[int](), 0
    for span in said.spans:
        first = max(bisect_left(units, span.first + 1, key=attrgetter("last")), free)
        last = bisect_left(units, span.last, key=attrgetter("first"))
        if first < last:
            spans.append(Span(first, last, span.kind))
            free = last
        else:
            lost_spans.append(types.index(span.kind))
    found = tuple((span.first, span.last, types.index(span.kind)) for span in spans)
    numbers = [outputs[tag] for tag in tags_of(spans, len(units))]
    return TaggedRow(len(units), parts, found, tuple(lost_spans), tuple(lost_tags)), numbers
