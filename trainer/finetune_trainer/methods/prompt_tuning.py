"""Learned embeddings of virtual tokens, which stand before each row's own (Lester et al. 2021), and a new head.

They start as embeddings of words: those of a text, or of tokens that the seed draws.
"""

from __future__ import annotations

from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.method import METHODS
from finetune_api.status import Finding
from finetune_api.tuning import PromptTuning
from finetune_trainer.methods.base import Identity, TuningMethod
from finetune_trainer.methods.modules import head_modules
from finetune_trainer.methods.peft_adapter import whole_modules
from finetune_trainer.methods.prompts import (
    ADAPTER,
    answers_at_the_last_token,
    check_task,
    refuse_unless,
    with_virtual_tokens,
)
from finetune_trainer.model.head import HeadPolicy

TOKENS = "spec.method.promptTuning.virtualTokens"
TEXT = "spec.method.promptTuning.initText"

TASKS = {"CAUSAL_LM": "language models", "SEQ_CLS": "classifiers of texts"}
"""Where tokens are classified, peft answers for the virtual ones too: whoever loads the adapter gets answers that are
shifted.
"""


def apply(model: Any, settings: PromptTuning, head: HeadPolicy, seed: int) -> Any:
    """The peft model."""
    import torch
    from peft import PromptTuningConfig

    check_model(model, head)
    embeddings = model.get_input_embeddings().weight
    config = PromptTuningConfig(
        task_type=head.peft_task,
        num_virtual_tokens=settings.virtual_tokens,
        token_dim=embeddings.shape[1],
        num_attention_heads=1,  # of no use here, and not every family says it where peft looks
        modules_to_save=whole_modules(model, head, head_modules(model, head)),
    )
    tokens = first_tokens(model, settings, len(embeddings), seed)
    tuned = with_virtual_tokens(model, head, config, seed)
    with torch.no_grad():
        tuned.prompt_encoder["default"].embedding.weight.copy_(embeddings[tokens])
    return tuned


def check_model(model: Any, head: HeadPolicy) -> None:
    """Raises JobError where the method does not fit."""
    check_task(model, head, TASKS)
    refuse_unless(not model.config.is_encoder_decoder, model, head, "it has an encoder and a decoder")
    vocabulary = model.get_input_embeddings().weight
    first = next((p for p in model.parameters() if p.shape[:1] == vocabulary.shape[:1]), None)
    refuse_unless(first is vocabulary, model, head, "peft does not find its embeddings")


def first_tokens(model: Any, settings: PromptTuning, vocabulary: int, seed: int) -> Any:
    """The ids of tokens to start from: a text's over and over, or drawn."""
    import torch

    if settings.init_text is None:
        draw = torch.Generator().manual_seed(seed)
        return torch.randint(vocabulary, (settings.virtual_tokens,), generator=draw)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, local_files_only=True, trust_remote_code=False)
    ids = tokenizer(settings.init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise JobError(Reason.INVALID_CONFIG, "the text has no tokens", field=TEXT, hint="Write words, or remove it.")
    return torch.tensor((ids * settings.virtual_tokens)[: settings.virtual_tokens])


def check(model: Any, settings: PromptTuning, head: HeadPolicy) -> list[Finding]:
    """Raises JobError as `apply` does; finds that others must pad on the left, where that is so."""
    check_model(model, head)
    if head.peft_task != "SEQ_CLS" or not answers_at_the_last_token(model):
        return []
    message = (
        f"{type(model).__name__} answers at a row's last token, and does not find it behind virtual tokens where rows"
        " are padded on the right. Training here does. With the adapter in plain peft give it one row at a time, or pad"
        " on the left; method prefix-tuning has no such limit."
    )
    return [Finding(kind="PadOnTheLeft", count=1, message=message[:384])]


METHOD = TuningMethod(
    METHODS["prompt-tuning"],
    apply,
    check,
    phrase="embeddings of virtual tokens",
    title="prompt tuning",
    defaults=PromptTuning(),
    identity={
        "promptTokens": Identity(TOKENS, lambda settings: settings.virtual_tokens),
        "promptText": Identity(TEXT, lambda settings: settings.init_text),
    },
    packages=("peft",),
    adapter=ADAPTER,
    extra_positions=lambda settings: settings.virtual_tokens,
)
