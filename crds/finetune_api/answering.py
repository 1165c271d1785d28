"""What only questions on a text ask: how long texts are cut into windows, and how long an answer may be."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import Model

FLATTEN = (
    "Make rows of it: jq -c '.data[].paragraphs[] | .context as $c | .qas[] | {id, question, context: $c, answers:"
    " {text: [.answers[].text], answer_start: [.answers[].answer_start]}}' FILE > rows.jsonl"
)
"""What to do with SQuAD's nested file."""


class QuestionAnswering(Model):
    """How answers are looked for in texts."""

    stride: int | None = Field(
        None,
        ge=0,
        le=65_536,
        description="Tokens that neighbouring windows of a long context share; 128 when absent, or half of a window's"
        " room for the context where that is less.",
    )
    max_answer_tokens: int = Field(30, ge=1, le=4096, description="Most tokens of an answer that the model gives.")
