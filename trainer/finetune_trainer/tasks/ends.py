"""Which tokens a model learns to end with: what stops generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable

from finetune_trainer.batches.example import Example


def learned_ends(examples: Iterable[Example], special: Container[int | None]) -> tuple[int, ...]:
    """The special tokens that were learned as the end of a turn or of a text, the most frequent first."""
    ends: Counter[int] = Counter()
    for example in examples:
        ends.update(example.learned_ends(special))
    return tuple(token for token, _ in ends.most_common())
