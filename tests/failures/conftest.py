"""Tiny models, made once, and the server that processes are forked from."""

from support.launch import fork_server
from support.tiny import bert, llama

__all__ = ["bert", "fork_server", "llama"]
