"""What only jobs on images ask: the settings of their task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import Model, Rule


class ImageClassification(Model):
    """How images are varied while the model learns; they are judged as they are."""

    augmentation: Literal["light", "none"] = Field(
        "light",
        description="light: each epoch sees another part of each image, at least half of it, and some mirrored;"
        " none: always the whole image as the model's image processor prepares it.",
    )
    flip: bool | None = Field(
        None,
        description="Whether light mirrors half of the images, left to right; true when absent. Set it to false where"
        " left and right matter: digits, letters, signs.",
    )

    RULES = (
        Rule(
            "!has(self.flip) || !self.flip || !has(self.augmentation) || self.augmentation != 'none'",
            "only with augmentation light; remove it",
            lambda s: not s.flip or s.augmentation != "none",
            field="flip",
        ),
    )
