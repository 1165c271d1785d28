"""Guess task, columns and classes from a data file's first rows; each guess comes with its reason, to be checked by a
person.
"""

from __future__ import annotations

from finetune_api.forms import one_form
from finetune_cli.init.guesses.answers import answers
from finetune_cli.init.guesses.base import Guess, Guesser, Rows
from finetune_cli.init.guesses.chats import chats
from finetune_cli.init.guesses.classification import classification
from finetune_cli.init.guesses.entities import entities
from finetune_cli.init.guesses.images import images
from finetune_cli.init.guesses.prompts import prompts
from finetune_cli.init.guesses.scores import scores
from finetune_cli.init.guesses.several import several
from finetune_cli.init.guesses.texts import texts
from finetune_cli.terminal import Stop

GUESSERS: tuple[Guesser, ...] = (images, chats, entities, answers, prompts, several, scores)
"""In the order in which they are asked, the most particular first; what none knows is a text, with a class or not."""


def guess(rows: Rows, *, label: str | None = None, text: str | None = None) -> Guess:
    """The most likely use of the rows. `label` and `text` are what the user knows better.

    Raises Stop if nothing fits.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    label, text = (given and one_form(given) for given in (label, text))
    for given in (label, text):
        if given is not None and given not in names:
            raise Stop(f"no column {given}", hint=f"The columns are {', '.join(names)}.")
    if label is None and text is None:
        for guesser in GUESSERS:
            if found := guesser(rows, names):
                return found
    if label is None and (found := texts(rows, names, text)):
        return found
    return classification(rows, names, label, text)
