"""A prompt and its completion, encoded apart, exactly as they meet at inference; the end-of-text token is learned."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import Row


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
