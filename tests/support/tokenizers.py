"""Tokenizers of the kinds that families bring: WordPiece, byte-level BPE and Unigram, small enough to read.

All of them know the words of `support.models` whole, so that tiny models learn quickly whatever splits their text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.models import HAM, LETTERS, NEUTRAL, SPAM, tiny_bert

WORDS = [*dict.fromkeys(word for word in (*HAM, *SPAM, *NEUTRAL) if len(word) > 1)]
BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
ROBERTA = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def word_piece(folder: Path, positions: int) -> int:
    """BERT's; the size of the vocabulary."""
    tiny_bert(folder, positions=positions)
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def byte_level(folder: Path, positions: int, tokens: dict[str, str], double: bool = False) -> int:
    """Byte-level BPE that puts `tokens` around a text, as an encoder's does; `double`: two separators in a pair."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*tokens.values(), *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        whole = "Ġ"
        for letter in word:
            if (whole + letter) not in vocabulary:
                merges.append((whole, letter))
                vocabulary[whole + letter] = len(vocabulary)
            whole += letter
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return _save(folder, backend, positions, tokens, double)


def unigram(folder: Path, positions: int, tokens: dict[str, str], double: bool = False) -> int:
    """Unigram over words that begin with ▁, as SentencePiece's are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = [(token, 0.0) for token in tokens.values()]
    pieces += [(f"▁{word}", -3.0 - i / 100) for i, word in enumerate(WORDS)]
    pieces += [(piece, -9.0) for piece in ("▁", *LETTERS)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=list(tokens.values()).index(tokens["unk_token"])))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _save(folder, backend, positions, tokens, double)


def _save(folder: Path, backend: Any, positions: int, tokens: dict[str, str], double: bool) -> int:
    from tokenizers import AddedToken, processors

    cls, sep = tokens["cls_token"], tokens["sep_token"]
    ids: Sequence[tuple[str, int]] = [(token, backend.token_to_id(token)) for token in (cls, sep)]
    between = f"{sep} {sep}" if double else sep
    backend.post_processor = processors.TemplateProcessing(
        f"{cls} $A {sep}", f"{cls} $A {between} $B:1 {sep}:1", list(ids)
    )
    backend.add_special_tokens([AddedToken(token, special=True) for token in tokens.values()])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": positions, **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    return int(backend.get_vocab_size())
