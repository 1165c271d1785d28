"""What masked language modelling asks beside what all tasks ask."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import Model


class MaskedLm(Model):
    """What is hidden from the model, for it to guess.

    Of the chosen tokens 80 % are masked, 10 % are exchanged for others, and 10 % stay.
    """

    mask_share: float = Field(
        0.15,
        ge=0.01,
        le=0.5,
        description="Share of a text's words that are hidden, drawn anew in each epoch; one word of a text at least.",
    )
    whole_words: bool = Field(True, description="Hide all tokens of a word together; false draws single tokens.")
