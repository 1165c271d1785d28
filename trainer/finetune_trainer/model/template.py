"""A model's chat template, rendered as transformers renders it, but under a clock that stands still.

Templates may write today's date (`strftime_now`): a run that is resumed tomorrow must see the same tokens, so the
prepare step chooses the moment and the profile keeps it. The template is foreign code: it runs in transformers' own
sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which data sets keep what a turn thought; templates read the first two."""


class RefusedChat(ValueError):
    """The chat template refuses a chat, in its own words."""


class ChatTemplate:
    """A template and what it may use: the tokenizer's special tokens by name, and the moment that it takes for now."""

    def __init__(self, source: str, special_tokens: Mapping[str, Any], now: datetime | None = None) -> None:
        """`now` None: the real clock. Raises jinja2's TemplateError where the source is no template."""
        from transformers.utils.chat_template_utils import (
            _compile_jinja_template,
        )  # the public way turns functions into texts

        self._template: Any = _compile_jinja_template(source)
        self._given: dict[str, Any] = dict(special_tokens)
        if now is not None:
            self._given["strftime_now"] = now.strftime

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Any = None, *, generation_prompt: bool = False
    ) -> str:
        """The chat as text.

        Raises RefusedChat for whatever the template stumbles over: it is code for other people's chats.
        """
        try:
            text: str = self._template.render(
                messages=list(messages),
                tools=tools,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._given,
            )
        except MemoryError:
            raise
        except Exception as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise RefusedChat(f"the model's chat template refuses the chat: {why}") from None
        return text


def with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its reasoning under both names that templates read."""
    found = next((message[name] for name in REASONING if message.get(name) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}
