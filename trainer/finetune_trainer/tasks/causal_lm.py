"""Causal language modelling on chats or on prompt and completion; only what the assistant writes is learned.

The learned part of a chat is found by rendering (`turns.py`), so no template needs generation markers. A prompt and its
completion are encoded
apart, exactly as they meet at inference, and the end-of-text token is learned. Rows with nothing to learn are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.job import Columns
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import IGNORE, Example, Row, Task, Unlearnable, missing, pick, text_problem
from finetune_trainer.tasks.chats.encode import encode_chat
from finetune_trainer.tasks.chats.messages import chat_of, messages_problem, tools_problem

USUAL = {
    "messages": ("messages", "conversation", "conversations", "chat"),
    "tools": ("tools",),
    "prompt": ("prompt", "instruction", "question", "input"),
    "context": ("input", "context"),
    "completion": ("completion", "response", "answer", "output"),
}
BESIDE = (
    "system",
    "system_prompt",
    "history",
    "functions",
    "documents",
    "reasoning",
    "reasoning_content",
    "thinking",
    "thought",
    "chosen",
    "rejected",
)


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles messages and, if there are any, tools; or prompt, completion and, if there is one, context. Raises JobError
    naming the field.

    A context is looked for only where the prompt is not named: who names the two columns has left out the third.
    """
    w = wanted or Columns()
    if w.prompt is None and (chat := pick("messages", w.messages, USUAL["messages"], found)):
        tools = pick("tools", w.tools, [name for name in USUAL["tools"] if name != chat], found)
        return {"messages": chat} | ({"tools": tools} if tools else {})
    prompt = pick("prompt", w.prompt, USUAL["prompt"], found)
    completion = pick("completion", w.completion, USUAL["completion"], found)
    if prompt is None and completion is None:
        raise missing("messages", "no column has a usual name for a chat, or for a prompt and its completion", found)
    if prompt is None:
        raise missing("prompt", "no column has a usual name for the prompt", found)
    if completion is None:
        raise missing("completion", "no column has a usual name for the completion", found)
    free = [name for name in USUAL["context"] if name != prompt] if w.prompt is None else []
    context = pick("context", w.context, free, found)
    return {"prompt": prompt} | ({"context": context} if context else {}) | {"completion": completion}


def label(row: Row, columns: Mapping[str, str]) -> None:
    """Language models have no classes."""


def check_row(row: Row, columns: Mapping[str, str], labels: Sequence[str] | None = None) -> str | None:
    """What is wrong with the row, or None."""
    if "messages" in columns:
        if "tools" in columns and (problem := tools_problem(row.get(columns["tools"]), columns["tools"])):
            return problem
        return messages_problem(row.get(columns["messages"]), columns["messages"])
    texts = [columns["prompt"], columns["completion"]]
    if "context" in columns and row.get(columns["context"]) is not None:
        texts.append(columns["context"])
    if problem := next(filter(None, (text_problem(row, column) for column in texts)), None):
        return problem
    if not row[columns["completion"]].strip():
        return f"column {columns['completion']!r} is empty: nothing to learn; give it a text, or leave the row out"
    return None


def encode(
    row: Row, columns: Mapping[str, str], labels: Sequence[str] | None, tokenizer: Tokenizer, max_length: int
) -> Example:
    """Token ids and labels, cut on the right. Raises Unlearnable where no learned token is left.

    The row has passed check_row.
    """
    hidden = 0
    if "messages" in columns:
        tools = row.get(columns["tools"]) if "tools" in columns else None
        ids, targets, hidden = encode_chat(tokenizer, chat_of(row[columns["messages"]], tools, tokenizer))
    else:
        ids, targets = encode_completion(tokenizer, prompt_of(row, columns), row[columns["completion"]])
    example = Example(ids[:max_length], targets[:max_length], None, len(ids), hidden)
    if example.learned == 0:
        raise Unlearnable(
            f"nothing is left to learn: the row has {len(ids)} tokens, and none of the first {max_length} is the"
            " assistant's; raise spec.training.maxLength, or shorten what comes before"
        )
    return example


def prompt_of(row: Row, columns: Mapping[str, str]) -> str:
    """The text that the model is given: the prompt, and the context behind a blank line where there is one."""
    context = row.get(columns["context"]) if "context" in columns else None
    return f"{row[columns['prompt']]}\n\n{context}" if context and context.strip() else str(row[columns["prompt"]])


def encode_completion(tokenizer: Tokenizer, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """The prompt as the tokenizer starts a text, the completion as its continuation, then the end-of-text token."""
    start = tokenizer.start(prompt)
    learned = tokenizer.ids(completion)
    if tokenizer.eos_id is not None:
        learned = [*learned, tokenizer.eos_id]
    return start + learned, [IGNORE] * len(start) + learned


HEAD = HeadPolicy(is_new=False, peft_task="CAUSAL_LM")

TASK = Task("causal-lm", columns, label, check_row, encode, USUAL, HEAD, BESIDE, frozenset({"tools", "context"}))
