"""Amounts as Kubernetes writes them, and the accelerators among a pod's resources."""

from __future__ import annotations

from decimal import Decimal

import pytest

from finetune_api.base import parse
from finetune_api.pod import Resources
from finetune_api.quantity import exact_quantity, quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (2, "2"),
        ("500m", "0.5"),
        ("0.1", "0.1"),
        ("8Gi", str(8 * 2**30)),
        ("1.5k", "1500"),
        ("1E", str(10**18)),
        ("1Ei", str(2**60)),
    ],
)
def test_an_amount_is_exact(text: int | str, amount: str) -> None:
    assert exact_quantity(text) == Decimal(amount)
    assert quantity(text) == float(amount)


def test_accelerators_are_whole_devices_whose_resource_ends_in_gpu() -> None:
    given = {"limits": {"nvidia.com/gpu": 2, "example.org/nic": 1, "memory": "8Gi"}, "requests": {"cpu": "500m"}}
    assert parse(Resources, given).accelerators == 2
    assert parse(Resources, {"limits": {"amd.com/gpu": "1", "nvidia.com/gpu": "2"}}).accelerators == 3
    assert Resources().accelerators == 0
