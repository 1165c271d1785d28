"""Chats: a column of turns."""

from __future__ import annotations

from typing import Any

from finetune_api.tasks import usual_names
from finetune_cli.init.guesses.base import Guess, Rows
from finetune_cli.terminal import Stop

TOOLS = usual_names("tools")


def chats(rows: Rows, names: list[str]) -> Guess | None:
    """Lists of role and content. Raises Stop for those of from and value."""
    for name in names:
        values = [row.get(name) for row in rows]
        if all(_is_chat(value) for value in values):
            tools = [n for n in names if n.lower() in TOOLS and n != name]
            reasons = [
                f"{name} holds chats: lists of role and content",
                *(f"{n} holds what they may call" for n in tools),
            ]
            return Guess({"messages": name} | ({"tools": tools[0]} if tools else {}), tuple(reasons))
        if all(isinstance(v, list) and v and isinstance(v[0], dict) and {"from", "value"} <= set(v[0]) for v in values):
            raise Stop(
                f"{name} holds chats as from and value",
                hint='Write each turn as {"role": "user" or "assistant", "content": …} instead.',
            )
    return None


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(turn, dict) and "role" in turn and ("content" in turn or turn.get("tool_calls"))
            for turn in value
        )
    )
