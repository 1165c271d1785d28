"""Images varied while the model learns: a random part of each (Szegedy et al. 2014), and some mirrored.

All chance comes from the generator given, so that an image is varied alike wherever its epoch is met again (I3).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LEAST_AREA = 0.5
"""Of the image: less might leave out what it is of."""
LONGEST_SIDES = 4 / 3
"""Longer side to shorter one, at most, beside the sides of what the model takes."""
TRIES = 10


def light(image: Any, generator: np.random.Generator, size: tuple[int, int], resample: int, flip: bool) -> Any:
    """A random part of the PIL image, resized to `size` (height, width), mirrored every second time if `flip`."""
    from PIL import Image

    height, width = size
    part = random_part(image.width, image.height, width / height, generator)
    mirrored = flip and bool(generator.random() < 0.5)
    image = image.resize((width, height), resample, box=part)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def random_part(width: int, height: int, shape: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a part; `shape`: width to height that suits the model. The whole image where none
    fits.
    """
    for _ in range(TRIES):
        area = width * height * generator.uniform(LEAST_AREA, 1.0)
        sides = shape * math.exp(generator.uniform(-math.log(LONGEST_SIDES), math.log(LONGEST_SIDES)))
        w, h = round(math.sqrt(area * sides)), round(math.sqrt(area / sides))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height
