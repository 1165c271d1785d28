"""Chats as data sets hold them, what may be wrong with them, and the one form in which every template is given them.

Data sets say "nothing" in many ways (null, an empty list, a key that is not there) and write the arguments of a tool
call as an object or as its JSON text. Templates stumble over what they do not expect, or print "None" and escaped
quotes, so a chat is brought to one form first; which one a template wants for tool calls is found by trying it on a
call of our own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from finetune_trainer.model.template import RefusedChat, with_reasoning
from finetune_trainer.model.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool")
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat in the form that its template takes, and the tools it may call."""

    messages: list[Message]
    tools: list[Any] | None = None

    def render(self, tokenizer: Tokenizer, count: int | None = None, *, generation_prompt: bool = False) -> str:
        """The first `count` messages (all of them at None) as text. Raises RefusedChat."""
        chosen = self.messages if count is None else self.messages[:count]
        return tokenizer.render(chosen, self.tools, generation_prompt=generation_prompt)


def parsed(value: Any) -> Any:
    """The value; what a text says in JSON where it is one (csv knows no lists, and many sets store tools so)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        return value


def messages_problem(value: Any, column: str, *, learned: bool = True) -> str | None:
    """What is wrong with a chat, or None; `learned`: its assistant must say something."""
    chat = parsed(value)
    if not isinstance(chat, list | tuple) or not chat:
        return f"column {column!r} must hold a list of {{role, content}} messages"
    for i, message in enumerate(chat):
        if problem := _message_problem(message):
            return f"column {column!r}, message {i}: {problem}"
    if learned and not any(m["role"] == "assistant" and says_something(m) for m in chat):
        return (
            f"column {column!r}: no message of the assistant has a text: nothing to learn; add one, or leave the"
            " row out"
        )
    return None


def _message_problem(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return 'needs a role and a content of text; write {"role": …, "content": …}'
    calls = message.get("tool_calls")
    if calls and message.get("role") == "assistant":
        if not isinstance(calls, list | tuple) or not all(_name(call) for call in calls):
            return 'tool_calls must be a list of calls with a name; write {"function": {"name": …, "arguments": …}}'
        if message.get("content") is not None and not isinstance(message["content"], str):
            return "its content must be a text, or null beside tool_calls"
    elif not isinstance(message.get("content"), str):
        return 'needs a role and a content of text; write {"role": …, "content": …}'
    if message.get("role") not in ROLES:
        return f"role {message.get('role')!r} is not one of {', '.join(ROLES)}; rename it"
    return None


def tools_problem(value: Any, column: str) -> str | None:
    """What is wrong with a row's tools, or None. Absent, null and empty mean none."""
    tools = parsed(value)
    if tools and not (isinstance(tools, list | tuple) and all(isinstance(tool, Mapping) for tool in tools)):
        return f"column {column!r} must hold a list of tools, each an object, or the same as JSON text"
    return None


def says_something(message: Mapping[str, Any]) -> bool:
    """Whether the message holds anything to learn."""
    return bool((message.get("content") or "").strip() or message.get("tool_calls"))


def called(message: Mapping[str, Any]) -> list[str]:
    """Names of the functions that the message calls."""
    return [str(_name(call)) for call in message.get("tool_calls") or ()]


def _name(call: Any) -> str | None:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) and name else None


def chat_of(value: Any, tools: Any, tokenizer: Tokenizer) -> Chat:
    """The chat of a row that has passed `messages_problem`, in the template's form."""
    offered = [dict(tool) for tool in parsed(tools) or ()] or None
    messages = [_plain(message) for message in parsed(value)]
    if any("tool_calls" in message for message in messages):
        style = tool_style(tokenizer, bool(offered))
        messages = [style.applied(message) for message in messages]
    return Chat(messages, offered)


def _plain(message: Mapping[str, Any]) -> Message:
    return with_reasoning(
        {key: value for key, value in message.items() if value is not None and (key != "tool_calls" or value)}
    )


@dataclass(frozen=True, slots=True)
class ToolStyle:
    """How a template wants tool calls: arguments as an object or as JSON text, and what stands for a content that is
    not there.
    """

    objects: bool
    nothing: str | None

    def applied(self, message: Message) -> Message:
        """The message in this style."""
        if "tool_calls" not in message:
            return message
        content = message.get("content") or self.nothing
        return {**message, "content": content, "tool_calls": [self._call(call) for call in message["tool_calls"]]}

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in call.items() if value is not None}
        if "function" in kept:
            return {**kept, "function": self._with_arguments(kept["function"])}
        return self._with_arguments(kept)

    def _with_arguments(self, function: Mapping[str, Any]) -> dict[str, Any]:
        arguments = function.get("arguments")
        if self.objects:
            arguments = parsed(arguments)
        elif not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {**function, "arguments": {} if arguments is None else arguments}


STYLES = tuple(ToolStyle(objects, nothing) for objects in (True, False) for nothing in ("", None))
_ASKED: Message = {"role": "user", "content": "x"}
_CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "probe_call", "arguments": {"probe_key": "probe_value"}},
}
_TOOL = {
    "type": "function",
    "function": {"name": "other", "description": "x", "parameters": {"type": "object", "properties": {}}},
}
_styles: WeakKeyDictionary[Tokenizer, dict[bool, ToolStyle]] = WeakKeyDictionary()


def tool_style(tokenizer: Tokenizer, tools: bool) -> ToolStyle:
    """The first style in which the template writes a call as it is; the first of all where none does (the call is
    hidden).
    """
    known = _styles.setdefault(tokenizer, {})
    if tools not in known:
        known[tools] = next(_clean(tokenizer, [_TOOL] if tools else None), STYLES[0])
    return known[tools]


def _clean(tokenizer: Tokenizer, tools: Any) -> Iterator[ToolStyle]:
    said = _rendered(tokenizer, [_ASKED], tools).count("None")  # a default system text may have the word
    for style in STYLES:
        text = _rendered(tokenizer, [_ASKED, style.applied({"role": "assistant", "tool_calls": [_CALL]})], tools)
        wrong = any(sign in text for sign in ('\\"probe_key', "'probe_key'")) or text.count("None") > said
        if not wrong and all(part in text for part in ("probe_call", "probe_key", "probe_value")):
            yield style


def _rendered(tokenizer: Tokenizer, messages: list[Message], tools: Any) -> str:
    try:
        return tokenizer.render(messages, tools)
    except RefusedChat:
        return ""
