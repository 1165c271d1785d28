"""Some judged images as the report shows them: small, and no more than a few hundred kilobytes in all."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

SIDE = 112
"""Pixels along the longer side."""
MOST = 24
MOST_BYTES = 12_000
"""Of one image, in base64."""


def thumbnail(image: Any) -> str:
    """A PIL image as a small JPEG in a data: URI."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    for quality in (80, 50, 20):
        sink = io.BytesIO()
        small.save(sink, "JPEG", quality=quality)
        text = base64.b64encode(sink.getvalue()).decode("ascii")
        if len(text) <= MOST_BYTES:
            break
    return f"data:image/jpeg;base64,{text}"


def chosen(right: Sequence[bool], scores: Sequence[float]) -> list[int]:
    """Which rows to show: mistakes first, the most certain ones, for half of the places; then right ones."""
    wrong = sorted((i for i, good in enumerate(right) if not good), key=lambda i: -scores[i])
    good = [i for i, each in enumerate(right) if each]
    shown = wrong[: max(MOST // 2, MOST - len(good))]
    return shown + good[: MOST - len(shown)]
