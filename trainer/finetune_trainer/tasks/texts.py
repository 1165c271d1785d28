"""What tasks that judge a text, or a pair of texts, have in common: columns, checks, tokens, the head."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune_api.sources import Columns
from finetune_api.tasks import TaskInfo
from finetune_trainer.batches.example import PlainExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import JobFacts, Row
from finetune_trainer.tasks.columns import missing, pick, text_problem

ROLES = ("text", "textPair")


def text_columns(info: TaskInfo, found: Sequence[str], wanted: Columns) -> dict[str, str]:
    """Roles text and, only if asked for, textPair. Raises JobError naming the field."""
    usual = next(role.usual for role in info.roles if role.name == "text")
    text = pick("text", wanted.text, usual, found)
    if text is None:
        raise missing("text", "no column has a usual name for the text", found)
    pair = pick("textPair", wanted.text_pair, (), found)
    return {"text": text} | ({"textPair": pair} if pair else {})


def texts_problem(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row's text or texts, or None. An empty text is a valid input; a missing one is not."""
    named = (columns[role] for role in ROLES if role in columns)
    return next(filter(None, (text_problem(row, column) for column in named)), None)


def tokens(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int) -> tuple[list[int], list[int] | None, int]:
    """Ids with the tokenizer's special tokens, type ids, and how many tokens there were before the cut.

    The longest text of a pair is cut first.
    """
    columns = facts.columns
    pair = row[columns["textPair"]] if "textPair" in columns else None
    return tokenizer.encode(row[columns["text"]], pair, max_length)


def asked(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int) -> PlainExample:
    """What the model is given of a row."""
    return PlainExample(*tokens(row, facts, tokenizer, max_length))


def whole_text(row: Row, columns: Mapping[str, str]) -> str:
    """The row's text or texts, for people."""
    return "\n\n".join(str(row[columns[role]]) for role in ROLES if role in columns)


def named_outputs(labels: Sequence[str]) -> dict[str, Any]:
    """Fields of the model's config: its outputs by name, in their order."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }


def refusal(config: Mapping[str, Any], source: str) -> str | None:
    """XLNet pads on the left, and its classifier answers at the last position whatever stands there."""
    if config["model_type"] == "xlnet" and config.get("summary_type", "last") == "last":
        return "the model's classifier answers at the last position, which is padding in all rows but the longest"
    return None


def text_head(info: TaskInfo, config: Callable[[Sequence[str]], dict[str, Any]]) -> HeadPolicy:
    """The head of a sequence classifier; `config`: (classes) -> fields of the model's config."""
    return HeadPolicy(
        serves=info.name,
        class_name=re.compile(r"\w+ForSequenceClassification"),
        auto_class="AutoModelForSequenceClassification",
        peft_task="SEQ_CLS",
        is_new=info.new_head,
        config=config,
        refusal=refusal,
    )
