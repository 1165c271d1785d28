"""What a model says of rows that need no tags: entities of a text, tags of words; and rows marked for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.answers import logits, rounded, softmax
from finetune_trainer.tasks.base import JobFacts, NothingToLearn, Row
from finetune_trainer.tasks.entities.encode import Unit, encode, tokens_of
from finetune_trainer.tasks.entities.rows import Passage, passage
from finetune_trainer.tasks.entities.tags import OUTSIDE, spans_of, tags_of, types_of

SAMPLES, LOOKED_AT, CHARACTERS = 4, 50, 600
"""Rows shown to people, the rows that they are chosen from, and the most characters of each."""


def answers(
    model: Any, rows: Sequence[Row], facts: JobFacts, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """Of a text {entities: [{start, end, label, text, score}]}; of words {tags, scores}, one each.

    The model is in eval mode, and the caller in torch.inference_mode().
    """
    said = [passage(row, facts.columns, learned=False) for row in rows]
    found = zip(said, _tagged(model, said, facts, tokenizer, max_length), strict=True)
    if "tokens" not in facts.columns:
        return [_entities(each, *answer) for each, answer in found]
    nothing = OUTSIDE if types_of(facts.labels) else None
    return [_words(each, *answer, nothing) for each, answer in found]


def _tagged(
    model: Any, said: Sequence[Passage], facts: JobFacts, tokenizer: Tokenizer, max_length: int
) -> list[tuple[list[Unit], list[str], list[float]]]:
    """Of each passage its units, their likeliest outputs and how likely they are."""
    windows = []
    for each in said:
        try:
            windows.append(encode(each, facts.labels, tokenizer, max_length))
        except NothingToLearn:
            windows.append([])
    scores = iter(logits(model, [w for row in windows for w in row], tokenizer.pad_id, max_length))
    found = []
    for each, row in zip(said, windows, strict=True):
        tags, shares = list[str](), list[float]()
        for window in row:
            own = softmax(next(scores)[np.array(window.targets) >= 0])
            tags += [facts.labels[n] for n in own.argmax(-1)]
            shares += own.max(-1).tolist()
        found.append((tokens_of(each, tokenizer)[1] if row else [], tags, shares))
    return found


def _words(
    said: Passage, units: Sequence[Unit], tags: Sequence[str], shares: Sequence[float], nothing: str | None
) -> dict[str, Any]:
    """A tag for each word; `nothing`, at no share, for one that the tokenizer turns into nothing."""
    words, scores = [nothing] * len(said.words), [0.0] * len(said.words)
    for unit, tag, share in zip(units, tags, shares, strict=True):
        words[unit.first], scores[unit.first] = tag, rounded(share)
    return {"tags": words, "scores": scores}


def _entities(said: Passage, units: Sequence[Unit], tags: Sequence[str], shares: Sequence[float]) -> dict[str, Any]:
    """Each entity with the mean of its words' shares."""
    found = []
    for span in spans_of(tags):
        start, end = said.words[units[span.first].first][0], said.words[units[span.last - 1].last - 1][1]
        score = rounded(np.mean(shares[span.first : span.last]))
        found.append({"start": start, "end": end, "label": span.kind, "text": said.text[start:end], "score": score})
    return {"entities": found}


def marked_rows(
    model: Any, rows: Iterable[Row], facts: JobFacts, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """The first few rows that have something to find and are short enough: {text, marks, reference, referenceMarks};
    marks are [start, end, label] in characters. The model is left in the mode it was in.
    """
    said = [passage(row, facts.columns) for row in islice(rows, LOOKED_AT)]
    said = [each for each in said if (each.spans or each.tags) and len(each.text) <= CHARACTERS][:SAMPLES]
    was_training = model.training
    model.eval()
    try:
        found = _both_marked(model, said, facts, tokenizer, max_length)
    finally:
        model.train(was_training)
    return [
        {"prompt": each.text, "reference": each.text, "referenceMarks": true, "text": each.text, "marks": own}
        for each, (true, own) in zip(said, found, strict=True)
    ]


def misread(
    model: Any, rows: Sequence[Row], facts: JobFacts, tokenizer: Tokenizer, max_length: int
) -> list[tuple[str, str, str, list[list[Any]], list[list[Any]]]]:
    """Of each row its text, what the data alone and what the model alone marks in words, and all marks of both."""
    said = [passage(row, facts.columns) for row in rows]
    found = []
    for each, (true, own) in zip(said, _both_marked(model, said, facts, tokenizer, max_length), strict=True):
        missed, wrong = ([m for m in marks if m not in others] for marks, others in ((true, own), (own, true)))
        found.append((each.text, _named(each.text, missed), _named(each.text, wrong), true, own))
    return found


def _both_marked(
    model: Any, said: Sequence[Passage], facts: JobFacts, tokenizer: Tokenizer, max_length: int
) -> list[tuple[list[list[Any]], list[list[Any]]]]:
    """The marks of each passage as the data has them, and as the model does."""
    plain, found = types_of(facts.labels) is None, []
    for each, (units, tags, _) in zip(said, _tagged(model, said, facts, tokenizer, max_length), strict=True):
        true = list(each.tags or tags_of(each.spans, len(each.words)))
        own = [OUTSIDE] * len(each.words)
        for unit, tag in zip(units, tags, strict=True):
            own[unit.first] = tag
        found.append((_marks(each, true, plain), _marks(each, own, plain)))
    return found


def _named(text: str, marks: Sequence[Sequence[Any]]) -> str:
    """Parts of a text with their labels, in words."""
    return "; ".join(f"{text[start:end]} ({label})" for start, end, label in marks) or "(nothing)"


def _marks(said: Passage, tags: Sequence[str], plain: bool) -> list[list[Any]]:
    """[start, end, label] of entities, or of every word where tags are plain."""
    if plain:
        return [[*place, tag] for place, tag in zip(said.words, tags, strict=True) if place[0] < place[1]]
    return [[said.words[s.first][0], said.words[s.last - 1][1], s.kind] for s in spans_of(tags)]
