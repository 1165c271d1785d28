"""What a masked language model says of texts: what belongs in their gaps, and how well it knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from finetune_api.masking import MaskedLm
from finetune_trainer.batches.example import IGNORE, MaskedExample
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.token_tally import perplexity
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.objectives.base import Losses
from finetune_trainer.objectives.masked_token import logits_at, masked_token
from finetune_trainer.tasks.answers import each, rounded
from finetune_trainer.tasks.base import Draw, JobFacts, Row
from finetune_trainer.tasks.masking import drawn, turns, words_of

SAMPLES, WORDS = 3, 60
"""Texts that the report shows, and the most words of each."""
BEST = 5
"""Tokens that are named for a gap."""

Text = tuple[list[int], list[int | None]]
"""Ids, and of each the number of its word."""


def fill(
    model: Any, texts: Sequence[str], settings: MaskedLm, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{text: with its gaps filled, fills: for each gap the likeliest tokens and their shares} of texts with masks."""
    answers = []
    for text, gaps in zip(texts, _gaps(model, texts, tokenizer, max_length), strict=True):
        fills = [
            {tokenizer.decode([int(token)]).strip(): rounded(shares[token]) for token in np.argsort(-shares)[:BEST]}
            for shares in gaps
        ]
        first, *rest = text.split(tokenizer.decode([tokenizer.mask_id or 0]))
        words = [next(iter(gap)) for gap in fills[: len(rest)]]
        answers.append({"text": first + "".join(map("".join, zip(words, rest, strict=False))), "fills": fills})
    return answers


def _gaps(model: Any, texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[list[np.ndarray]]:
    """Each text's gaps, with the share of every token in each."""
    parts = [(i, ids) for i, text in enumerate(texts) for ids, _ in tokenizer.parts(text, max_length)]
    examples = [_asking(ids, [p for p, token in enumerate(ids) if token == tokenizer.mask_id], ids) for _, ids in parts]
    found: list[list[np.ndarray]] = [[] for _ in texts]
    for (i, _), shares in zip(parts, _shares(model, examples, tokenizer, max_length), strict=True):
        found[i].extend(shares)
    return found


def _shares(model: Any, examples: Sequence[MaskedExample], tokenizer: Tokenizer, max_length: int) -> list[np.ndarray]:
    """[gaps, vocabulary] of each example."""

    def read(logits: torch.Tensor, batch: Sequence[Any]) -> list[np.ndarray]:
        return [part.double().softmax(-1).cpu().numpy() for part in logits.split([e.losses for e in batch])]

    def forward(model: Any, batch: MicroBatch) -> torch.Tensor:
        return logits_at(model, batch.inputs, batch.labels != IGNORE)

    return each(model, examples, tokenizer.pad_id, max_length, read, forward=forward)


def judge(
    model: Any, texts: Sequence[str], settings: MaskedLm, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{loss, perplexity, tokens} of texts: every word is hidden once, as many at a time as in training (as in Salazar
    et al. 2020, where it is one token at a time); None where the tokenizer knows no word.
    """
    owners: list[int] = []
    examples: list[MaskedExample] = []
    for i, text in enumerate(texts):
        for ids, numbers in tokenizer.parts(text, max_length):
            for places in turns(words_of(numbers, whole=settings.whole_words), settings.mask_share):
                owners.append(i)
                examples.append(_asking(_masked(ids, places, tokenizer), places, ids))

    def read(losses: Losses, batch: Sequence[Any]) -> list[tuple[float, float]]:
        return list(zip(losses.sums.tolist(), losses.counts.tolist(), strict=True))

    sums = np.zeros((len(texts), 2))
    found = each(model, examples, tokenizer.pad_id, max_length, read, forward=masked_token)
    for i, loss_and_count in zip(owners, found, strict=True):
        sums[i] += loss_and_count
    return [_judged(float(loss), int(tokens)) for loss, tokens in sums]


def _judged(loss: float, tokens: int) -> dict[str, Any]:
    mean = loss / tokens if tokens else None
    return {
        "loss": mean and rounded(mean),
        "perplexity": None if mean is None else rounded(perplexity(mean)),
        "tokens": tokens,
    }


def filled_samples(
    model: Any, rows: Iterable[Row], facts: JobFacts, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, str]]:
    """The first few texts with the words hidden that an evaluation might hide, and what the model takes these for."""
    settings: MaskedLm = facts.settings
    found: list[tuple[str, list[int], list[int]]] = []
    for number, row in enumerate(rows):
        text = " ".join(row[facts.columns["text"]].split()[:WORDS])
        ids, numbers = tokenizer.parts(text, max_length)[0]
        if words := words_of(numbers, whole=settings.whole_words):
            found.append((text, ids, drawn(words, settings.mask_share, Draw(row=number).generator())))
        if len(found) == SAMPLES:
            break
    was_training = model.training
    model.eval()
    try:
        examples = [_asking(_masked(ids, places, tokenizer), places, ids) for _, ids, places in found]
        guesses = [shares.argmax(-1) for shares in _shares(model, examples, tokenizer, max_length)]
    finally:
        model.train(was_training)
    samples = []
    for (text, ids, places), guess in zip(found, guesses, strict=True):
        filled = dict(zip(places, guess.tolist(), strict=True))
        guessed = [filled.get(place, token) for place, token in enumerate(ids)]
        asked = _masked(ids, places, tokenizer)
        samples.append({"prompt": _shown(asked, tokenizer), "reference": text, "text": _shown(guessed, tokenizer)})
    return samples


def _asking(given: list[int], places: Sequence[int], ids: Sequence[int]) -> MaskedExample:
    """What the model is given, and where it is asked what belongs there."""
    targets = [IGNORE] * len(ids)
    for place in places:
        targets[place] = ids[place]
    return MaskedExample(given, None, len(ids), targets)


def _masked(ids: Sequence[int], places: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """All of the places masked."""
    found = list(ids)
    for place in places:
        found[place] = tokenizer.mask_id or 0
    return found


def _shown(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """As text, without the special tokens around it."""
    kept = [token for token in ids if token == tokenizer.mask_id or token not in tokenizer.special_ids]
    return tokenizer.decode(kept).strip()
