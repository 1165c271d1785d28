"""The model's tokenizer, as its tokenizer.json says, behind the few calls that tasks need; without torch.

The generic fast class is used on tokenizer.json itself, so that no architecture's class re-builds it and the import
stays light; models without that file go through transformers' converters. Templates are rendered in transformers'
sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.failures import disk, memory
from finetune_trainer.model.facts import read_config
from finetune_trainer.model.pads import pad_id
from finetune_trainer.model.template import ChatTemplate

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are forked, and rows come one at a time

MODEL_FIELD = "spec.model.uri"
Parts = list[tuple[list[int], list[int | None]]]
UNLIMITED = 1_000_000
"""transformers writes 1e30 where a tokenizer knows no longest input."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts as the tokenizer puts them together with its special tokens, uncut.

    The second text's tokens stand together: the first of them at `first`, and `offsets` says of each where in the text
    it begins and ends (characters). `null`: the place that stands for the whole: that of the CLS token, wherever the
    tokenizer puts it, else of the BOS, else the first.
    """

    ids: list[int]
    type_ids: list[int] | None
    first: int
    offsets: list[tuple[int, int]]
    null: int


class Tokenizer:
    """A tokenizer with its chat template. Holds the Rust tokenizer's truncation setting, so: one thread at a time."""

    fixed_length: int | None = None
    """Texts differ in length."""

    def __init__(self, backend: Any, now: datetime | None = None, config: Mapping[str, Any] | None = None) -> None:
        """`now`: what chat templates take for the present; None for the real clock. `config`: the model's config.json,
        for what the tokenizer must keep to."""
        self._hf, self._now = backend, now
        self._templates: dict[str, ChatTemplate] = {}
        self._fast = backend.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        self._cut: int | None = None
        self.eos_id: int | None = backend.eos_token_id
        self.bos_id: int | None = backend.bos_token_id
        self.mask_id: int | None = backend.mask_token_id
        self._cls_id: int | None = backend.cls_token_id
        self.special_ids = frozenset(self._fast.token_to_id(str(t)) for t in backend.all_special_tokens) | frozenset(
            i for i, token in self._fast.get_added_tokens_decoder().items() if token.special
        )
        self._specials = sorted(
            {self._fast.id_to_token(i) for i in self.special_ids if i is not None}, key=len, reverse=True
        )
        config = config or {}
        self.pad_id: int = pad_id(backend.pad_token_id, config, self.eos_id)
        self._types: int = config.get("type_vocab_size") or 0
        self._known: int | None = config.get("vocab_size")
        self.max_length: int | None = backend.model_max_length if backend.model_max_length < UNLIMITED else None

    @property
    def added(self) -> frozenset[str]:
        """Tokens that stand beside the vocabulary, and are found in a text as they are written."""
        return frozenset(token.content for token in self._fast.get_added_tokens_decoder().values())

    def beyond(self, size: int) -> dict[str, int]:
        """Tokens whose id is not below `size`, with their ids."""
        return {token: i for token, i in self._fast.get_vocab(with_added_tokens=True).items() if i >= size}

    @cached_property
    def ordinary_ids(self) -> list[int]:
        """Tokens that a text is made of and the model knows: neither special ones nor added ones."""
        added = self._fast.get_added_tokens_decoder().keys() | self.special_ids
        found = sorted(i for i in self._fast.get_vocab(with_added_tokens=True).values() if i not in added)
        return [i for i in found if self._known is None or i < self._known]

    @property
    def hf(self) -> Any:
        """The transformers object, for generation and export."""
        return self._hf

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template."""
        return self._hf.chat_template

    def encode(self, text: str, pair: str | None, max_length: int) -> tuple[list[int], list[int] | None, int]:
        """Ids with special tokens cut to max_length, type ids (pairs only), and the length before the cut."""
        if self._cut != max_length:
            self._fast.enable_truncation(max_length, strategy="longest_first")
            self._cut = max_length
        encoding = self._fast.encode(text, pair) if pair is not None else self._fast.encode(text)
        length = len(encoding.ids) + sum(sum(1 for m in o.special_tokens_mask if not m) for o in encoding.overflowing)
        return encoding.ids, self._type_ids(encoding) if pair is not None else None, length

    def _type_ids(self, encoding: Any) -> list[int] | None:
        """Of a pair; None where the model does not tell its texts by them, whatever the tokenizer thinks."""
        types: list[int] = encoding.type_ids
        return types if max(types, default=0) < self._types else None

    def pair(self, first: str, second: str) -> Pair:
        """Both texts with special tokens, whole."""
        encoding = self._whole(first, second, special=True)
        sides = encoding.sequence_ids
        places = [i for i, side in enumerate(sides) if side == 1]
        special = {token: i for i, token in reversed([*enumerate(encoding.ids)]) if sides[i] is None}
        null = next((special[i] for i in (self._cls_id, self.bos_id) if i in special), 0)
        start = places[0] if places else len(encoding.ids)
        return Pair(encoding.ids, self._type_ids(encoding), start, [encoding.offsets[i] for i in places], null)

    def parts(self, text: str, max_length: int) -> Parts:
        """The whole text in as few parts of at most `max_length` tokens as it takes, about equally long, each with
        special tokens: ids, and of each the number of the word that it is of; None: of none, it is a special token.
        """
        content = len(self._whole(text).ids)
        special = self._fast.num_special_tokens_to_add(False)
        count = max(1, -(-content // max(1, max_length - special)))
        self._cut = special + max(1, -(-content // count))
        self._fast.enable_truncation(self._cut)
        first = self._fast.encode(text)
        return [(part.ids, self._words(part, text)) for part in (first, *first.overflowing)]

    def _words(self, encoding: Any, text: str) -> list[int | None]:
        """The tokenizer's own, unless it takes a whole text for one word: then white space begins a new one."""
        special = [
            bool(mask) or i in self.special_ids
            for mask, i in zip(encoding.special_tokens_mask, encoding.ids, strict=True)
        ]
        if self._parts_words:
            return [None if s else word for s, word in zip(special, encoding.word_ids, strict=True)]
        words: list[int | None] = []
        word, before = 0, ""
        for hidden, (start, end) in zip(special, encoding.offsets, strict=True):
            piece = text[start:end]
            word += piece[:1].isspace() or (text[start - 1 : start].isspace() and not before.isspace())
            words.append(None if hidden else word)
            before = piece
        return words

    @cached_property
    def _parts_words(self) -> bool:
        """Whether the tokenizer tells words apart."""
        return len(set(self._whole("a b").word_ids)) > 1

    def ids(self, text: str) -> list[int]:
        """Ids of a continuation: no special tokens are added."""
        return self._whole(text).ids

    def with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids without added special tokens, and where in the text each begins and ends (characters)."""
        encoding = self._whole(text)
        return encoding.ids, encoding.offsets

    def around(self) -> tuple[list[int], list[int]]:
        """Ids of the special tokens that it puts before and behind a text."""
        encoding = self._whole("a", special=True)
        inner = [n for n, special in enumerate(encoding.special_tokens_mask) if not special] or [len(encoding.ids)]
        return encoding.ids[: inner[0]], encoding.ids[inner[-1] + 1 :]

    def start(self, text: str) -> list[int]:
        """Ids as the tokenizer starts a text: its BOS once, even if the text spells it too, and no EOS at the end."""
        ids = self._whole(text, special=True).ids
        if self.bos_id is not None and ids[:2] == [self.bos_id, self.bos_id]:
            ids = ids[1:]
        if ids and ids[-1] == self.eos_id and len(ids) > len(self._whole(text).ids):
            ids = ids[:-1]
        return ids

    def _whole(self, text: str, pair: str | None = None, special: bool = False) -> Any:
        if self._cut is not None:
            self._fast.no_truncation()
            self._cut = None
        return self._fast.encode(text, pair, add_special_tokens=special)

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Any = None, *, generation_prompt: bool = False
    ) -> str:
        """The chat as text. Raises JobError without a template, RefusedChat with the template's own complaint."""
        return self._template(bool(tools)).render(messages, tools, generation_prompt=generation_prompt)

    def _template(self, tools: bool) -> ChatTemplate:
        """The template for chats with or without tools: some models have one of its own for each."""
        if self.chat_template is None:
            raise JobError(
                Reason.INVALID_CONFIG,
                "the model's tokenizer has no chat template, and the data has chats",
                field=MODEL_FIELD,
                hint="Use an instruct model, or data with prompt and completion columns.",
            )
        from jinja2 import TemplateError

        try:
            source: str = self._hf.get_chat_template(None, [{}] if tools else None)
            if source not in self._templates:
                self._templates[source] = ChatTemplate(source, self._hf.special_tokens_map, self._now)
        except (TemplateError, ValueError) as error:
            raise JobError(
                Reason.UNSUPPORTED_MODEL,
                f"the model's chat template cannot be used: {error}"[:900],
                field=MODEL_FIELD,
                hint=(
                    "Mend chat_template in tokenizer_config.json or chat_template.jinja, or use data with prompt and"
                    " completion columns."
                ),
            ) from None
        return self._templates[source]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of ids."""
        return self._fast.decode(list(ids), skip_special_tokens=skip_special)

    def end_of_special(self, text: str, position: int) -> int:
        """The end of the special token that stands at `position` (white space may come first), or `position`."""
        start = position
        while start < len(text) and text[start].isspace():
            start += 1
        return next(
            (start + len(token) for token in self._specials if token and text.startswith(token, start)), position
        )


def load_tokenizer(folder: Path, now: datetime | None = None) -> Tokenizer:
    """The tokenizer in a model folder; its templates take `now` for the present.

    Raises JobError when there is none that can be read.
    """
    try:
        if (folder / "tokenizer.json").exists():
            from transformers import PreTrainedTokenizerFast

            backend = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
            return Tokenizer(backend, now, _config(folder))
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, use_fast=True)
    except Exception as error:
        if memory.ran_out(error) or disk.is_full(error):
            raise  # nothing is wrong with the model
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"the model's tokenizer cannot be read: {error}"[:900],
            field=MODEL_FIELD,
            hint="The model folder needs tokenizer.json.",
        ) from error
    if not getattr(slow, "is_fast", False):
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            "the model's tokenizer has no fast (Rust) version",
            field=MODEL_FIELD,
            hint="The model folder needs tokenizer.json.",
        )
    return Tokenizer(slow, now, _config(folder))


def _config(folder: Path) -> dict[str, Any]:
    """What the model's config.json says; nothing where a folder has a tokenizer only."""
    path = folder / "config.json"
    return read_config(folder) if path.exists() else {}
