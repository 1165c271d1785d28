"""Images and their classes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from finetune_api.formats import is_image
from finetune_api.forms import one_form
from finetune_api.tasks import usual_names
from finetune_cli.init.guesses.base import Guess, Rows, few


def images(rows: Rows, names: list[str]) -> Guess | None:
    """A column of paths of images, or of their bytes, beside one of classes."""
    image = next((name for name in names if all(_image(row.get(name)) for row in rows)), None)
    if image is None:
        return None
    plain = [n for n in names if n != image and all(isinstance(row.get(n), str | int) for row in rows)]
    usual = [n for n in plain if n.lower() in usual_names("label")]
    label = next((n for n in (*usual, *plain) if few(rows, n)), None)
    if label is None:
        return None
    classes = Counter(one_form(str(row[label])) for row in rows)
    reasons = (
        f"{image} {'holds' if str(rows[0][image])[:5].lower() == 'data:' else 'names'} images",
        f"{label} holds the classes: {len(classes)} different values in {len(rows)} rows",
    )
    return Guess({"image": image, "label": label}, reasons, dict(classes.most_common()))


def _image(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes)
    return isinstance(value, str) and (is_image(value) or value[:11].lower() == "data:image/")
