"""Images as examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_trainer.batches.example import IGNORE, Example


@dataclass(frozen=True, slots=True)
class Black:
    """In the place of an image's values: zeros of this form."""

    shape: tuple[int, ...]
    dtype: str

    def __call__(self, pixels: None) -> np.ndarray:
        """All zeros."""
        return np.zeros(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class ImageExample(Example):
    """An image that belongs to the class of this index; IGNORE where it is only to be answered.

    `pixels` are uint8 [height, width, 3], a quarter of what the model takes: `values` makes that, float32 [3, height,
    width], when the image's turn has come. `patches` is how many positions it takes. `pixels` are None where nobody
    looks at them any more.
    """

    pixels: np.ndarray | None
    values: Callable[[Any], np.ndarray]
    patches: int
    label: int = IGNORE
    hidden: int = 0

    @property
    def length(self) -> int:
        """Patches."""
        return self.patches

    @property
    def full_length(self) -> int:  # type: ignore[override]
        """Nothing is cut."""
        return self.patches

    @property
    def bytes(self) -> int:  # type: ignore[override]
        """Its pixels."""
        return 0 if self.pixels is None else self.pixels.nbytes

    @property
    def losses(self) -> int:
        """One, where there is something to learn."""
        return int(self.label != IGNORE)

    def inputs(self, width: int, pad_id: int) -> dict[str, Any]:
        """All images of a job are of one size."""
        return {"pixel_values": self.values(self.pixels)}

    def labels(self, width: int) -> int:
        """The class."""
        return self.label

    def alone(self, most: int) -> dict[str, Any]:
        """The whole image."""
        return {"pixel_values": self.values(self.pixels)}

    def lean(self, places: slice) -> ImageExample:
        """Without its pixels: of the same form, and black."""
        values = self.values(self.pixels)
        return dataclasses.replace(self, pixels=None, values=Black(values.shape, str(values.dtype)))
