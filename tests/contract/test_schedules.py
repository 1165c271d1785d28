"""Every schedule is a share of the peak rate that depends on the step alone, whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.schedules import SCHEDULES, rate_at


@given(
    schedule=st.sampled_from([*SCHEDULES]),
    total=st.integers(1, 200),
    warm=st.floats(0, 1),
    ratio=st.floats(1e-3, 1),
    cycles=st.integers(1, 300),
)
def test_rates_are_between_zero_and_the_peak(schedule: str, total: int, warm: float, ratio: float, cycles: int) -> None:
    warmup = math.ceil(warm * total)
    settings = {"total": total, "warmup": warmup, "schedule": schedule, "decay_ratio": ratio, "cycles": cycles}
    rates = [rate_at(step, peak=1.0, **settings) for step in range(1, total + 1)]  # type: ignore[arg-type]
    assert all(0.0 < rate <= 1.0 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    if warmup < total:
        assert rates[warmup] == 1.0 or (schedule == "wsd" and ratio * total > total - warmup - 1)
    assert max(rates) == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_behind_the_last_step_it_ends_as_it_says(schedule: str) -> None:
    rate = rate_at(12, peak=0.5, total=10, warmup=4, schedule=schedule)
    assert rate == pytest.approx({"constant": 0.5, "inverse-sqrt": 0.5 * math.sqrt(4 / 11)}.get(schedule, 0.0))
