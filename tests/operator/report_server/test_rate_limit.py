"""The allowance: so much at once, so much a second, each key for itself, and memory that does not grow."""

from __future__ import annotations

from finetune_operator.report_server import rate_limit
from finetune_operator.report_server.rate_limit import RateLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_followed_by_the_rate_and_keys_do_not_share() -> None:
    clock = Clock()
    limit = RateLimit(2, 3, clock)
    assert [limit.spend("a") for _ in range(5)] == [True, True, True, False, False]
    assert limit.spend("b")
    clock.now = 1.0
    assert [limit.spend("a") for _ in range(3)] == [True, True, False]
    clock.now = 100.0
    assert [limit.spend("a") for _ in range(4)] == [True, True, True, False]


def test_keys_that_are_full_again_are_dropped_and_those_that_are_not_stay(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(rate_limit, "KEYS", 10)
    clock = Clock()
    limit = RateLimit(1, 1, clock)
    for i in range(11):
        assert limit.spend(f"old-{i}")
    clock.now = 1.0
    assert limit.spend("new")
    assert len(limit._left) <= 2
    assert not limit.spend("new")
