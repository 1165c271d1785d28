"""Kubernetes' timestamps as seconds since the epoch, and back; no clock is read here."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds(text: str | None) -> float | None:
    """RFC 3339 (2026-01-31T12:00:00Z, with or without a fraction) to seconds since the epoch; None for anything else.

    Some moments are written by users or trainers: junk in one must not keep the rest from being read.
    """
    try:
        moment = datetime.fromisoformat(text) if text else None
        return moment.timestamp() if moment and moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def rfc3339(moment: float) -> str:
    """Seconds since the epoch to RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
