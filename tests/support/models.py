"""Tiny models from configs and fixed seeds, and small data sets that such models can learn; nothing is downloaded.

`tiny_bert` and `tiny_llama` write a complete model folder (config.json, tokenizer files, model.safetensors) in a
second:
an encoder without a head and WordPiece, a decoder with byte-level BPE and a chat template without generation markers.
`mails`, `chats` and `questions` make rows whose answer can be learned in a few dozen steps. Run as a script, this
module writes both models and data sets to a folder, for tests that need them as files.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HAM = (
    "meeting report lunch project review notes budget agenda thanks regards attached schedule team call minutes draft"
).split()
SPAM = (
    "winner free prize click offer viagra cash urgent credit deal cheap pills bonus casino guaranteed million".split()
)
NEUTRAL = "the a to of and for in on we you it is this that with our your at be are from please will can".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?:;'-_@#/"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'"
    " }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
"""ChatML as many models ship it: nothing marks what the assistant wrote."""


def mails(count: int, seed: int = 0, words: tuple[int, int] = (6, 30)) -> list[dict[str, Any]]:
    """Rows {text, label}, about a third of them spam; a linear model on word counts reaches an F1 above 0.95."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        spam = rng.random() < 0.35
        own, other = (SPAM, HAM) if spam else (HAM, SPAM)
        text = " ".join(rng.choices(NEUTRAL + own * 2 + other[:4], k=rng.randint(*words)))
        rows.append({"text": text, "label": "spam" if spam else "ham"})
    return rows


def topics(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows {text, labels}: spam, ham, both or neither, and short where there are few words."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        spam, ham, short = (rng.random() < p for p in (0.4, 0.5, 0.2))
        words = NEUTRAL + (SPAM * 2 if spam else []) + (HAM * 2 if ham else [])
        text = " ".join(rng.choices(words, k=rng.randint(2, 5) if short else rng.randint(10, 24)))
        named = [name for name, has in (("ham", ham), ("short", short), ("spam", spam)) if has]
        rows.append({"text": text, "labels": named})
    return rows


def scored(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows {text, score}: the share of words of spam, from 1 to 5."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        spam, words = rng.random(), rng.randint(8, 24)
        own = [rng.random() < spam for _ in range(words)]
        text = " ".join(rng.choice(SPAM if each else HAM) for each in own)
        rows.append({"text": text, "score": round(1 + 4 * sum(own) / words, 2)})
    return rows


def chats(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows {messages}: the assistant repeats the user's last word, sometimes over two turns."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        messages = [{"role": "system", "content": "echo"}] if rng.random() < 0.3 else []
        for _ in range(rng.choice((1, 1, 2))):
            question = " ".join(rng.choices(HAM, k=rng.randint(1, 4)))
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": question.split()[-1]}]
        rows.append({"messages": messages})
    return rows


def questions(count: int, seed: int = 0, words: tuple[int, int] = (6, 30)) -> list[dict[str, Any]]:
    """Rows {question, context, answers} as SQuAD has them: the answer is what of a mail is spam, if anything is; a
    third of the rows have none.
    """
    rng, rows = random.Random(seed), []
    for _ in range(count):
        context = rng.choices(HAM + NEUTRAL, k=rng.randint(*words))
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if rng.random() < 0.67:
            answer, at = rng.choices(SPAM, k=rng.randint(1, 2)), rng.randint(0, len(context))
            answers = {"text": [" ".join(answer)], "answer_start": [len("".join(f"{word} " for word in context[:at]))]}
            context[at:at] = answer
        question = rng.choice(("what is the offer?", "will you win cash or a prize?"))
        rows.append({"question": question, "context": " ".join(context), "answers": answers})
    return rows


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny_bert(
    folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2, dropout: float = 0.1, positions: int = 128
) -> Path:
    """A BertModel without a head (about 20,000 weights at the defaults) and its WordPiece tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    words = SPECIAL + list(LETTERS) + [f"##{c}" for c in LETTERS] + [w for w in HAM + SPAM + NEUTRAL if len(w) > 1]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
        [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))],
    )
    tokens = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    _save_tokenizer(
        folder, backend, SPECIAL, {"tokenizer_class": "BertTokenizer", "model_max_length": positions, **tokens}
    )

    config = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


def tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    positions: int = 256,
    dropout: float = 0.0,
    template: str | None = CHAT_TEMPLATE,
    bos: bool = False,
    pad: bool = True,
) -> Path:
    """A LlamaForCausalLM (about 30,000 weights) and a byte-level BPE tokenizer.

    `bos`: the tokenizer puts <|bos|> first; `pad`: has a pad token of its own.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|bos|>", "<|pad|>"]
    vocabulary = {token: i for i, token in enumerate(special + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing("<|bos|> $A", "<|bos|> $A $B", [("<|bos|>", 3)])
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "eos_token": "<|im_end|>",
    }
    settings |= {"pad_token": "<|pad|>"} if pad else {"pad_token": "<|im_end|>"}
    settings |= {"bos_token": "<|bos|>"} if bos else {}
    settings |= {"chat_template": template} if template else {}
    _save_tokenizer(folder, backend, special, settings)

    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        bos_token_id=3 if bos else None,
        eos_token_id=2,
        pad_token_id=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _save_tokenizer(folder: Path, backend: Any, special: list[str], settings: dict[str, Any]) -> None:
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(t, special=True) for t in special])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def main(folder: Path) -> None:
    """Write everything under `folder`: models/bert, models/llama, mail/{train,test}.jsonl, chat/train.jsonl."""
    tiny_bert(folder / "models" / "bert")
    tiny_llama(folder / "models" / "llama")
    write_jsonl(folder / "mail" / "train.jsonl", mails(400, seed=1))
    write_jsonl(folder / "mail" / "test.jsonl", mails(200, seed=2))
    write_jsonl(folder / "chat" / "train.jsonl", chats(200, seed=3))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
