"""Amounts as Kubernetes writes them: 2, "500m", "8Gi"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.base import Says

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
_A_QUANTITY = Says('must be an amount such as 2, "500m" or "8Gi"')
QuantityText = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=QUANTITY), _A_QUANTITY]
Quantity = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=QUANTITY)],
    _A_QUANTITY,
]
"""An amount as Kubernetes writes it: 2, "500m", "8Gi"."""

_FACTORS: dict[str, int | Decimal] = {
    "": 1,
    "m": Decimal("0.001"),
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}


def exact_quantity(value: int | str) -> Decimal:
    """The amount, exactly: cores, bytes or devices. Kubernetes' resource.Quantity, decimal and binary suffixes."""
    if isinstance(value, int):
        return Decimal(value)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", value)
    assert match, f"{value} passed validation as a quantity"
    return Decimal(match[1]) * _FACTORS[match[2]]


def quantity(value: int | str) -> float:
    """The amount as a number: cores, bytes or devices."""
    return float(exact_quantity(value))
