"""Causal language modelling on chats or on prompt and completion; only what the assistant writes is learned.

The learned part of a chat is found by rendering (`chats/turns.py`), so no template needs generation markers. A prompt
and its completion are encoded apart (`completion.py`). Rows with nothing to learn are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_trainer.batches.example import TokenExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Mistake, Mistakes, NothingToLearn, Row, Sampling, Task
from finetune_trainer.tasks.chats.encode import encode_chat
from finetune_trainer.tasks.chats.messages import chat_of, messages_problem, tools_problem
from finetune_trainer.tasks.chats.omissions import omissions
from finetune_trainer.tasks.columns import missing, pick, text_problem
from finetune_trainer.tasks.completion import encode_completion, prompt_of

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["causal-lm"]
USUAL = {role.name: role.usual for role in INFO.roles}


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


def classes(row: Row, columns: Mapping[str, str]) -> tuple[()]:
    """Language models have no classes."""
    return ()


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
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


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> tuple[TokenExample]:
    """Token ids and labels, cut on the right. Raises NothingToLearn where no learned token is left.

    The row has passed check_row.
    """
    columns, hidden = facts.columns, 0
    if "messages" in columns:
        tools = row.get(columns["tools"]) if "tools" in columns else None
        ids, targets, hidden = encode_chat(tokenizer, chat_of(row[columns["messages"]], tools, tokenizer))
    else:
        ids, targets = encode_completion(tokenizer, prompt_of(row, columns), row[columns["completion"]])
    example = TokenExample(ids[:max_length], None, len(ids), targets[:max_length], hidden=hidden)
    if example.losses == 0:
        raise NothingToLearn(
            f"nothing is left to learn: the row has {len(ids)} tokens, and none of the first {max_length} is the"
            " assistant's; raise spec.training.maxLength, or shorten what comes before"
        )
    return (example,)


def refusal(config: Mapping[str, Any], source: str) -> str | None:
    """A model that sees both sides of a token cannot learn to write."""
    if config.get("is_encoder_decoder") or re.search(r"^class \w+ForMaskedLM\b", source, re.MULTILINE):
        return f"model type {config['model_type']!r} does not support {INFO.name}"
    return None


def objective(facts: JobFacts) -> Objective:
    """Each learned token from those before it."""
    from finetune_trainer.objectives.next_token import next_token

    return next_token(smoothing=facts.training.label_smoothing)


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Losses of tokens; there are no classes."""
    from finetune_trainer.evaluate.token_tally import TokenTally

    return TokenTally()


def samples(model: Any, rows: Iterable[Row], given: Sampling) -> list[dict[str, str]]:
    """What the model writes to the first few prompts that are short enough."""
    from finetune_trainer.tasks.generation import answers

    return answers(model, rows, given)


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Rows whose learned text the model did not expect; `true` is that text."""
    from finetune_trainer.tasks.generation import asked_and_answered

    parts = (asked_and_answered(row, given.facts.columns, given.tokenizer) for row in rows)
    return [
        Mistake(asked, answered, "", {"loss a token": each.wrong})
        for (asked, answered), each in zip(parts, kept, strict=True)
    ]


def check_input(row: Row, columns: Mapping[str, str]) -> str | None:
    """What keeps a row from being answered, or None: it needs no completion, and its chat no answer."""
    if "messages" in columns:
        if "tools" in columns and (problem := tools_problem(row.get(columns["tools"]), columns["tools"])):
            return problem
        return messages_problem(row.get(columns["messages"]), columns["messages"], learned=False)
    if problem := text_problem(row, columns["prompt"]):
        return problem
    asked = "context" in columns and row.get(columns["context"]) is not None
    return text_problem(row, columns["context"]) if asked else None


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{text, ended} that the model writes to each row, greedily."""
    from finetune_trainer.tasks.generation import written

    return [written(model, row, facts.columns, tokenizer, max_length) for row in rows]


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """A text and how it goes on."""
    return [
        'inputs = tokenizer("some text", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))",
    ]


HEAD = HeadPolicy(
    serves=INFO.name,
    class_name=re.compile(r"\w+(?:ForCausalLM|LMHeadModel)"),
    auto_class="AutoModelForCausalLM",
    peft_task="CAUSAL_LM",
    is_new=INFO.new_head,
    writes=True,
    refusal=refusal,
)

TASK = Task(
    info=INFO,
    head=HEAD,
    columns=columns,
    classes=classes,
    check_row=check_row,
    encode=encode,
    objective=objective,
    tally=tally,
    usage=usage,
    predict=predict,
    check_input=check_input,
    samples=samples,
    mistakes=Mistakes({"surprising": "The highest loss a token"}, mistakes),
    omissions=omissions,
)
