"""Which tokens of a text are hidden, and behind what (Devlin et al. 2018, with the whole-word masking of their 2019
update).

Words are drawn, and all tokens of a drawn word are hidden; of these 80 % are masked, 10 % are exchanged for any token,
and 10 % stay as they are, since later texts hold no masks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

MASKED, EXCHANGED = 0.8, 0.1


def words_of(numbers: Sequence[int | None], *, whole: bool) -> list[list[int]]:
    """The places of each word's tokens, by the number of the word that each token is of (None: it is never hidden)."""
    words: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        if number is not None:
            words.setdefault(number if whole else place, []).append(place)
    return list(words.values())


def drawn(words: Sequence[Sequence[int]], share: float, generator: np.random.Generator) -> list[int]:
    """The places of words drawn at random, sorted: this share of them on average, and one at least."""
    count = max(1, int(share * len(words) + generator.random()))
    chosen = generator.choice(len(words), min(count, len(words)), replace=False)
    return sorted(place for i in chosen for place in words[i])


def hidden(
    ids: Sequence[int], places: Collection[int], mask_id: int, ordinary: Sequence[int], generator: np.random.Generator
) -> list[int]:
    """The ids with what stands at these places masked, exchanged for one of the ordinary tokens, or kept."""
    found = list(ids)
    for place, chance in zip(places, generator.random(len(places)), strict=True):
        if chance < MASKED:
            found[place] = mask_id
        elif chance < MASKED + EXCHANGED:
            found[place] = ordinary[int(generator.integers(len(ordinary)))]
    return found


def turns(words: Sequence[Sequence[int]], share: float) -> list[list[int]]:
    """The places of all words over several turns, each word in one of them, about this share of the words in each."""
    count = min(len(words), max(1, round(1 / share)))
    return [[place for word in words[turn::count] for place in word] for turn in range(count)]
