"""Tiny models, made once."""

from support.tiny import bert, llama

__all__ = ["bert", "llama"]
