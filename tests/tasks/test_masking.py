"""Which words of a text are hidden: as often as asked for, whole, never special tokens, the same for the same draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Fast

from finetune_api.exits import JobError, Reason
from finetune_api.masking import MaskedLm
from finetune_trainer.batches.example import IGNORE, MaskedExample
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn
from finetune_trainer.tasks.masking import drawn, hidden, turns, words_of
from finetune_trainer.tasks.registry import task_for
from support.models import HAM, NEUTRAL, mails, tiny_bert

TASK = task_for("masked-lm")
TEXT = "meeting notes attached, please review the schedule unknownword at lunch"


def facts(**settings: Any) -> JobFacts:
    return JobFacts({"text": "text"}, settings=MaskedLm(**settings))


def encoded(text: str, tokenizer: Tokenizer, length: int = 512, draw: Draw | None = None, **settings: Any) -> Any:
    return TASK.encode({"text": text}, facts(**settings), tokenizer, length, draw or Draw(seed=3, epoch=0, row=0))


def original(example: MaskedExample) -> list[int]:
    """The ids before any was hidden."""
    return [i if t == IGNORE else t for i, t in zip(example.input_ids, example.targets, strict=True)]


def save(folder: Path, backend: Fast, tokens: dict[str, str]) -> Tokenizer:
    backend.add_special_tokens([AddedToken(t, special=True) for t in tokens.values()])
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> $B </s>", [(t, backend.token_to_id(t)) for t in ("<s>", "</s>")]
    )
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **tokens})
    )
    return load_tokenizer(folder)


MARKS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def byte_level(folder: Path) -> Tokenizer:
    """As RoBERTa's: words carry the space before them."""
    alphabet = [*MARKS.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Fast(models.BPE({t: i for i, t in enumerate(alphabet)}, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return save(folder, backend, MARKS)


def pieces() -> list[tuple[str, float]]:
    letters = "abcdefghijklmnopqrstuvwxyz,▁"
    return [(t, 0.0) for t in MARKS.values()] + [(c, -5.0) for c in letters] + [("▁the", -2.0), ("▁meet", -2.5)]


def unigram(folder: Path) -> Tokenizer:
    """As XLM-R's: a sign for the space before each word, split by it."""
    backend = Fast(models.Unigram(pieces(), unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return save(folder, backend, MARKS)


def unsplit(folder: Path) -> Tokenizer:
    """As some of SentencePiece's: the same signs, but the tokenizer takes the whole text for one word."""
    backend = Fast(models.Unigram(pieces(), unk_id=3))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Metaspace()
    return save(folder, backend, MARKS)


MAKERS: dict[str, Callable[[Path], Tokenizer]] = {
    "word-piece": lambda folder: load_tokenizer(tiny_bert(folder)),
    "byte-level": byte_level,
    "unigram": unigram,
    "unsplit": unsplit,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """A tokenizer of each kind."""
    return {kind: make(tmp_path_factory.mktemp(kind) / "t") for kind, make in MAKERS.items()}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def word_piece(made: dict[str, Tokenizer]) -> Tokenizer:
    return made["word-piece"]


def test_words_are_hidden_whole_and_special_tokens_never(kind: str, made: dict[str, Tokenizer]) -> None:
    tokenizer = made[kind]
    ((ids, numbers),) = tokenizer.parts(TEXT, 512)
    assert all((n is None) == (i in tokenizer.special_ids) for i, n in zip(ids, numbers, strict=True))
    words = words_of(numbers, whole=True)
    shown = ["".join(tokenizer.decode([ids[p] for p in word])).replace("##", "").strip() for word in words]
    splits = kind in ("word-piece", "byte-level")
    expected = (TEXT.replace(",", " ,") if splits else TEXT).split()
    assert [word.replace(" ", "") for word in shown] == expected
    assert max(map(len, words)) > 1
    seen: set[int] = set()
    for epoch in range(40):
        (example,) = encoded(TEXT, tokenizer, draw=Draw(seed=1, epoch=epoch, row=5))
        places = {p for p, target in enumerate(example.targets) if target != IGNORE}
        assert original(example) == ids
        assert all(set(word) <= places or places.isdisjoint(word) for word in words)
        assert example.losses == len(places) > 0
        seen |= places
    assert seen == {p for word in words for p in word}, "each word has its turn"


def test_single_tokens_are_hidden_where_words_need_not_be_whole(word_piece: Tokenizer) -> None:
    tokenizer = word_piece
    ((_, numbers),) = tokenizer.parts("unknownword", 64)
    assert len(words_of(numbers, whole=True)) == 1
    assert len(words_of(numbers, whole=False)) == 11
    (whole,), (single,) = (encoded("unknownword", tokenizer, whole_words=w) for w in (True, False))
    assert whole.losses == 11
    assert single.losses in (1, 2)


def test_as_many_are_hidden_as_asked_for_and_behind_what() -> None:
    words, generator = [[i] for i in range(40)], np.random.default_rng(1)
    counts = [len(drawn(words, 0.31, generator)) for _ in range(2000)]
    assert np.mean(counts) == pytest.approx(0.31 * 40, rel=0.01), "no bias by rounding"
    assert set(counts) == {12, 13}
    assert len(drawn([[0, 1]], 0.01, generator)) == 2, "one word at least"
    ids, places = [7] * 40_000, list(range(40_000))
    found = np.array(hidden(ids, places, 1, list(range(100, 200)), generator))
    shares = [(found == 1).mean(), (found >= 100).mean(), (found == 7).mean()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert len(set(found[found >= 100])) == 100
    assert hidden([5, 6], [], 1, [9], generator) == [5, 6]


def test_each_word_has_one_turn() -> None:
    words = [[i, i + 100] for i in range(20)]
    found = turns(words, 0.15)
    assert len(found) == 7
    assert sorted(p for turn in found for p in turn) == sorted(p for word in words for p in word)
    assert turns([[3]], 0.15) == [[3]]
    assert turns([], 0.15) == []


def test_chance_hangs_on_seed_epoch_and_row_alone(word_piece: Tokenizer) -> None:
    tokenizer = word_piece
    text = mails(1, seed=2, words=(60, 60))[0]["text"]
    draws = [Draw(seed, epoch, row) for seed in (0, 1) for epoch in (None, 0, 1) for row in (0, 7)]
    found = [encoded(text, tokenizer, draw=draw)[0] for draw in draws]
    again = [encoded(text, tokenizer, draw=draw)[0] for draw in reversed(draws)]
    assert found == again[::-1]
    assert len({tuple(example.targets) for example in found}) == len(draws)


def test_a_long_text_gives_several_examples_and_nothing_of_it_is_lost(kind: str, made: dict[str, Tokenizer]) -> None:
    tokenizer = made[kind]
    text = " ".join(np.random.default_rng(4).choice(HAM + NEUTRAL, 90))
    ((whole, _),) = tokenizer.parts(text, 1 << 30)
    found = encoded(text, tokenizer, 24)
    assert len(found) > 3
    assert max(e.length for e in found) <= 24
    assert [i for e in found for i in original(e)[1:-1]] == whole[1:-1]
    assert all(original(e)[0] == whole[0] and original(e)[-1] == whole[-1] for e in found)
    assert all(e.losses and e.full_length == e.length for e in found)
    (fits,) = encoded(text, tokenizer, len(whole))
    assert original(fits) == whole


def test_what_cannot_be_hidden(word_piece: Tokenizer, llama: Path) -> None:
    tokenizer = word_piece
    (short,) = encoded("lunch", tokenizer)
    assert short.losses == 1
    with pytest.raises(NothingToLearn, match="knows no word"):
        encoded("漢字", tokenizer)
    (spelt,) = encoded("[MASK] lunch [SEP]", tokenizer)
    assert [t for t in spelt.targets if t != IGNORE] == tokenizer.ids("lunch"), "one that is spelt out is special too"
    with pytest.raises(JobError) as caught:
        encoded("lunch", load_tokenizer(llama))
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL
    assert "no mask token" in caught.value.message


def test_tokens_that_the_model_does_not_know_are_put_nowhere(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "t")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 60}))
    tokenizer = load_tokenizer(folder)
    assert max(tokenizer.ordinary_ids) == 59
    assert tokenizer.special_ids.isdisjoint(tokenizer.ordinary_ids)
