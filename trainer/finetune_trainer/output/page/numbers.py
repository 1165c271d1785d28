"""Numbers as people read them."""

from __future__ import annotations

from typing import Any


def number(value: float) -> str:
    """A short number for a label."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10_000:
        for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= unit:
                return f"{value / unit:.3g}{name}"
    if size < 0.001:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"


def figure(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 else number(value)


def setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value) if abs(value) >= 1e-12 else "0"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {setting(each)}" for name, each in value.items())
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
