"""Each word is learned and judged once, whatever the tokenizer makes of it, and no tag moves a cut."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.tagged import TaggedExample
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn
from finetune_trainer.tasks.entities.rows import words_of
from finetune_trainer.tasks.entities.tags import outputs_for
from finetune_trainer.tasks.registry import task_for
from support.entities import LABELS, marked, tagged

TASK = task_for("token-classification")
WORDS = JobFacts({"tokens": "tokens", "tags": "tags"}, outputs_for(["LOC", "PER"]))
TEXT = JobFacts({"text": "text", "spans": "spans"}, outputs_for(["LOC", "PER"]))
ZERO_WIDTH = "\u200b"


@pytest.fixture(scope="module")
def wordpiece(bert: Path) -> Tokenizer:
    return load_tokenizer(bert)


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    """As RoBERTa's: bytes, the space before a word is part of its first token; <s> and </s> around."""
    vocabulary = {
        token: i for i, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠB", "er"])
    }
    backend = Backend(models.BPE(vocabulary, merges=[("Ġ", "B"), ("e", "r")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    )


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """As XLM-R's: words are parted by spaces alone, and some pieces take in several; control characters vanish."""
    pieces = [
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((c, -5.0) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,'ßü東京都"),
        ("▁New▁York", -1.0),
        ("東京", -1.0),
        ("▁in", -2.0),
    ]
    backend = Backend(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(ZERO_WIDTH, "")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>"))


def learned(t: Tokenizer, examples: Sequence[TaggedExample], facts: JobFacts) -> list[tuple[str, str]]:
    """The tokens that are learned, and their tags."""
    return [
        (t.decode([token]), facts.labels[target])
        for example in examples
        for token, target in zip(example.input_ids, example.targets, strict=True)
        if target != IGNORE
    ]


def encode(row: dict[str, Any], t: Tokenizer, longest: int = 1000) -> Sequence[TaggedExample]:
    facts = WORDS if "tokens" in row else TEXT
    assert TASK.check_row(row, facts.columns) is None
    return TASK.encode(row, facts, t, longest, Draw())  # type: ignore[return-value]


def test_the_first_token_of_each_word_is_learned(wordpiece: Tokenizer, bytewise: Tokenizer, pieces: Tokenizer) -> None:
    row = {"tokens": ["Ann", "sees", "Bonn", "."], "tags": ["B-PER", "O", "B-LOC", "O"]}
    expected = [("a", "B-PER"), ("s", "O"), ("b", "B-LOC"), (".", "O")]
    assert learned(wordpiece, encode(row, wordpiece), WORDS) == expected
    found = learned(bytewise, encode(row, bytewise), WORDS)
    assert [(token, tag) for token, tag in found] == [("A", "B-PER"), ("s", "O"), (" B", "B-LOC"), (".", "O")]
    assert [tag for _, tag in learned(pieces, encode(row, pieces), WORDS)] == [tag for _, tag in expected]


def test_a_text_with_spans_is_learned_as_its_words_with_tags_are(wordpiece: Tokenizer, bytewise: Tokenizer) -> None:
    facts = JobFacts(WORDS.columns, LABELS), JobFacts(TEXT.columns, LABELS)
    for words, text in zip(tagged(20, seed=2), marked(20, seed=2), strict=True):
        for t in (wordpiece, bytewise):
            a, b = (TASK.encode(row, f, t, 24, Draw()) for row, f in zip((words, text), facts, strict=True))
            assert [(e.input_ids, e.targets, e.first) for e in a] == [(e.input_ids, e.targets, e.first) for e in b]  # type: ignore[attr-defined]


@pytest.mark.parametrize("odd", ["", " ", "\t\n", "\u200b", "\x00", "\u00ad", "\ufeff"])
def test_a_word_that_is_nothing_keeps_its_place(wordpiece: Tokenizer, pieces: Tokenizer, odd: str) -> None:
    row = {"tokens": ["Ann", odd, odd, "sees", odd, "Bonn"], "tags": ["B-PER", "O", "O", "O", "O", "B-LOC"]}
    for t in (wordpiece, pieces):
        found = [pair for pair in learned(t, encode(row, t), WORDS) if pair[1] != "O"]
        assert [tag for _, tag in found] == ["B-PER", "B-LOC"]
        assert found[-1][0].strip().lower() == "b"
    (whole,) = encode({**row, "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]}, wordpiece)
    assert whole.row.spans == ((0, 1, 1),), "what is seen of the entity"
    assert (whole.row.lost_spans, len(whole.row.lost_tags), whole.hidden) == ((0,), 2, 1), "missed, and counted"


def test_an_entity_in_the_midst_of_which_a_word_vanishes_is_one(wordpiece: Tokenizer) -> None:
    (example,) = encode({"tokens": ["New", "\x00", "York"], "tags": ["B-LOC", "I-LOC", "I-LOC"]}, wordpiece)
    assert example.row.spans == ((0, 2, 0),)
    assert [tag for _, tag in learned(wordpiece, [example], WORDS)] == ["B-LOC", "I-LOC"]


def test_words_that_share_a_token_are_one_unit(pieces: Tokenizer) -> None:
    (example,) = encode({"tokens": ["in", "New", "York", "."], "tags": ["O", "B-LOC", "I-LOC", "O"]}, pieces)
    assert learned(pieces, [example], WORDS)[:2] == [("▁in", "O"), ("▁New▁York", "B-LOC")]
    assert example.row.spans == ((1, 2, 0),)
    (example,) = encode({"tokens": ["New", "York"], "tags": ["B-LOC", "B-PER"]}, pieces)
    assert (example.row.spans, example.row.lost_spans) == (((0, 1, 0),), (1,)), "the second cannot be told apart"
    (example,) = encode({"text": "in東京都", "spans": [{"start": 3, "end": 4, "label": "LOC"}]}, pieces)
    assert (example.row.units, example.row.spans) == (3, ((1, 2, 0),)), "learned on the token that it touches"


def test_white_space_at_a_spans_ends_is_left_off_and_words_are_taken_whole(wordpiece: Tokenizer) -> None:
    text = "Ann sees Berlins  walls"
    for start, end in ((9, 15), (8, 17), (9, 18), (11, 12), (15, 16)):
        (example,) = encode({"text": text, "spans": [{"start": start, "end": end, "label": "LOC"}]}, wordpiece)
        assert [tag for _, tag in learned(wordpiece, [example], TEXT)] == ["O", "O", "B-LOC", "O"], (start, end)
        assert example.row.spans == ((2, 3, 0),)
    row = {"text": text, "spans": [{"start": 9, "end": 15, "label": "LOC"}]}
    (found,) = TASK.omissions({3: row, 4: {"text": "Ann", "spans": []}}, {}, TEXT.columns, wordpiece)
    assert found.rows == [3]
    assert "'Berlins' for 'Berlin'" in found.message.format(share=0.5, split="train")


def test_every_word_is_learned_once_where_it_has_most_context(wordpiece: Tokenizer, bytewise: Tokenizer) -> None:
    rng = random.Random(7)
    for t in (wordpiece, bytewise):
        for row in tagged(12, seed=5, words=(10, 80)):
            row["tokens"] = [word if rng.random() < 0.6 else word * rng.randint(2, 3) + "q" for word in row["tokens"]]
            facts = JobFacts(WORDS.columns, LABELS)
            (whole,) = TASK.encode(row, facts, t, 10_000, Draw())
            longest = rng.choice([8, 16, 30])
            windows = TASK.encode(row, facts, t, longest, Draw())
            assert len(windows) > 1
            assert all(window.length <= longest for window in windows)
            assert learned(t, windows, facts) == learned(t, [whole], facts)  # type: ignore[arg-type]
            assert {id(window.row) for window in windows} == {id(windows[0].row)}  # type: ignore[attr-defined]
            assert windows[0].row.spans == whole.row.spans  # type: ignore[attr-defined]
            assert windows[0].row.parts == len(windows)  # type: ignore[attr-defined]
            firsts = [window.first for window in windows]  # type: ignore[attr-defined]
            assert firsts == [sum(w.losses for w in windows[:n]) for n in range(len(windows))]


def test_no_tag_moves_a_cut(wordpiece: Tokenizer) -> None:
    (row,) = tagged(1, seed=3, words=(60, 60))
    facts, rng = JobFacts(WORDS.columns, LABELS), random.Random(1)
    seen = set()
    for _ in range(20):
        tags = [rng.choice(LABELS) for _ in row["tokens"]]
        windows = TASK.encode({**row, "tags": tags}, facts, wordpiece, 24, Draw())
        seen.add(json.dumps([(w.input_ids, w.first, w.losses) for w in windows]))  # type: ignore[attr-defined]
    assert len(seen) == 1


@pytest.mark.parametrize(
    "row", [{"tokens": [], "tags": []}, {"tokens": [" "], "tags": ["O"]}, {"text": " \n", "spans": []}]
)
def test_a_row_without_a_word_has_nothing_to_learn(wordpiece: Tokenizer, row: dict[str, Any]) -> None:
    with pytest.raises(NothingToLearn, match="no word that the tokenizer knows"):
        encode(row, wordpiece)


def test_a_window_without_room_is_refused(wordpiece: Tokenizer) -> None:
    with pytest.raises(NothingToLearn, match="maxLength 2 leaves no room"):
        encode({"tokens": ["a"], "tags": ["O"]}, wordpiece, 2)
    assert len(encode({"tokens": ["ab"], "tags": ["O"]}, wordpiece, 3)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("U.S. don't", "U|.|S|.|don|'|t"),
        ("snake_case 3.5%", "snake_case|3|.|5|%"),
        ("東京tower へ", "東|京|tower|へ"),
        ("नमस्ते दुनिया", "नमस्ते|दुनिया"),
        ("e\u0301te\u0301", "e\u0301te\u0301"),
        ("สวัสดี", "ส|วั|ส|ดี"),
        ("서울에서", "서울에서"),
        (" \t\n\u00a0", ""),
    ],
)
def test_words_of_a_text(text: str, words: str) -> None:
    assert [text[a:b] for a, b in words_of(text)] == ([] if not words else words.split("|"))
