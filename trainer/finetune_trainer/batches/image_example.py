"""Images as examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_trainer.batches.example import IGNORE, Example


@dataclass(frozen=True, slots=True)
class ImageExample(Example):
    """An image that belongs to the class of this index; IGNORE where it is only to be answered.

    `pixels` are uint8 [height, width, 3], a quarter of what the model takes: `values` makes that, float32 [3, height,
    width], when the image's turn has come. `patches` is how many positions it takes.
    """

    pixels: np.ndarray
    values: Callable[[np.ndarray], np.ndarray]
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
        return self.pixels.nbytes

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

    def lean(self, places: slice) -> BlankImage:
        """Without its pixels."""
        values = self.values(self.pixels)
        return BlankImage(values.shape, str(values.dtype), self.patches, self.label, self.hidden)


@dataclass(frozen=True, slots=True)
class BlankImage(Example):
    """An image whose pixels nobody looks at any more: of its form, and black."""

    shape: tuple[int, ...]
    dtype: str
    patches: int
    label: int
    hidden: int

    @property
    def length(self) -> int:
        """Patches."""
        return self.patches

    @property
    def full_length(self) -> int:  # type: ignore[override]
        """Nothing is cut."""
        return self.patches

    @property
    def losses(self) -> int:
        """One, where there is something to learn."""
        return int(self.label != IGNORE)

    def inputs(self, width: int, pad_id: int) -> dict[str, Any]:
        """Zeros."""
        return {"pixel_values": np.zeros(self.shape, self.dtype)}

    def labels(self, width: int) -> int:
        """The class."""
        return self.label

    def alone(self, most: int) -> dict[str, Any]:
        """Zeros."""
        return self.inputs(most, 0)

    def lean(self, places: slice) -> BlankImage:
        """There is no less."""
        return self
