"""How a manifest that is made from data tunes and judges: by how many rows of each class there are."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.method import METHODS, MethodInfo
from finetune_cli.init.guesses.base import Guess
from finetune_cli.init.sample import Sample

FEW_ROWS = 32
"""Rows of a class, at most, from which comparing them teaches more than tuning every weight does."""
FOLDS = 4


@dataclass(frozen=True, slots=True)
class Way:
    """How to tune and judge: lines of the manifest."""

    data: str
    method: str
    """Up to the first line of training."""
    output: str


FOR_MANY = Way(
    data="""\
    validation:
      fraction: 0.1  # held out of the training rows, to judge by; or uri: …
    test:
      fraction: 0.1  # held out for the one evaluation at the end
""",
    method="""\
    type: lora
    lora: {rank: 8}
  training:
    epochs: 3
""",
    output="""\
    merge: true  # one model that loads by itself, beside the adapter
""",
)


def for_few(method: MethodInfo) -> Way:
    """By comparing rows; judged in folds, since held-out ones would be too few to tell anything."""
    return Way(
        data="",
        method=f"""\
    type: {method.name}  # there are few rows of each class
  evaluation:
    folds: {{count: {FOLDS}}}  # each row is judged once, by a model that did not learn from it
  training:
    epochs: {method.epochs:g}
""",
        output="",
    )


def way_for(seen: Sample, guessed: Guess) -> Way:
    """Few rows of each class are compared, where there are enough of each for every fold."""
    counts = guessed.classes.values()
    if not seen.whole or not counts or min(counts) < FOLDS or max(counts) > FEW_ROWS:
        return FOR_MANY
    comparing = (method for method in METHODS.values() if method.group > 1 and method.fits(guessed.task))
    return next(map(for_few, comparing), FOR_MANY)
