"""Dropout in place of the model's own, wherever its family writes it down: every probability of dropout in its config.

It is set before the model is built, since some layers are made only where a probability is above zero.
"""

from __future__ import annotations

import re
from typing import Any

OTHERS = re.compile(r"layer_?drop|drop_?path|token_drop")
"""Whole layers, paths or tokens left out: other means than dropout."""


def override_dropout(config: Any, probability: float) -> list[str]:
    """Set every probability of dropout in the config and the configs within it; the names of those it has.

    A probability that is None follows another one, and still does.
    """
    found = []
    for name, value in vars(config).items():
        if hasattr(value, "model_type"):
            found += override_dropout(value, probability)
        elif "drop" in name and not OTHERS.search(name) and type(value) in (int, float):
            setattr(config, name, probability)
            found.append(name)
    return found
