"""A tiny model, made once."""

from support.tiny import bert

__all__ = ["bert"]
