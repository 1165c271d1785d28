"""What prompt and prefix tuning share: virtual tokens by peft before those of a row, and a new head, trained whole.

peft hands a model rows that are longer than they were. Here a row's answers are brought back to its own tokens, and a
classifier that answers at the last token finds it: what is trained is what a single row is answered, however it is
padded (I1).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import finetune_trainer.methods.peft_adapter as peft_adapter
from finetune_api.exits import JobError, Reason
from finetune_trainer.methods.base import AdapterFormat, instead
from finetune_trainer.model.head import HeadPolicy

TYPE = "spec.method.type"


def refuse_unless(fits: bool, model: Any, head: HeadPolicy, why: str) -> None:
    """Raises JobError that says why virtual tokens do not fit, and which methods do."""
    if not fits:
        message = f"{type(model).__name__} takes no such virtual tokens: {why}"
        raise JobError(Reason.INVALID_CONFIG, message, field=TYPE, hint=instead(model, head))


def check_task(model: Any, head: HeadPolicy, kinds: Mapping[str, str]) -> None:
    """peft knows what to do for models of these kinds, in its words and in ours."""
    known = " and ".join(kinds.values())
    refuse_unless(head.peft_task in kinds, model, head, f"they are for {known} only, not for {head.serves}")


def with_virtual_tokens(model: Any, head: HeadPolicy, config: Any, seed: int) -> Any:
    """The peft model; new numbers are drawn from the seed. Raises JobError where peft refuses the model."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(seed)
    try:
        tuned = get_peft_model(model, config)
    except ValueError as error:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"{type(model).__name__} takes no virtual tokens: {error}",
            field=TYPE,
            hint=instead(model, head),
        ) from error
    return aligned(tuned)


def aligned(tuned: Any) -> Any:
    """The same peft model, which answers rows that are padded together as it does each by itself.

    Virtual tokens that stand among a row's own have answers of their own: these are left out. A classifier that answers
    at the last token cannot tell padding in embeddings: there rows are padded on the left. What goes on from a cache,
    which holds the virtual tokens already, does without new ones. A model without virtual tokens stays as it is.
    """
    base, config = tuned.get_base_model(), tuned.active_peft_config
    if not config.is_prompt_learning:
        return tuned
    among = config.peft_type == "PROMPT_TUNING"
    surplus = config.num_virtual_tokens if among and config.task_type != "SEQ_CLS" else 0
    if among and config.task_type == "SEQ_CLS" and answers_at_the_last_token(base):
        base.register_forward_pre_hook(_pad_on_the_left, with_kwargs=True)
    plain = tuned.forward

    @functools.wraps(plain)
    def forward(*arguments: Any, past_key_values: Any = None, **given: Any) -> Any:
        if past_key_values is not None:
            return base(*arguments, past_key_values=past_key_values, **given)
        output = plain(*arguments, **given)
        output.logits = output.logits[:, surplus:] if surplus else output.logits
        return output

    tuned.forward = forward
    return tuned


def answers_at_the_last_token(model: Any) -> bool:
    """Whether a classifier looks for the last token by the pad id, which embeddings do not show."""
    return "pad_token_id" in inspect.unwrap(type(model).forward).__code__.co_names


def _pad_on_the_left(module: Any, arguments: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Move each row to the end of its line, with the positions that it had."""
    import torch

    embeddings, mask = given.get("inputs_embeds"), given.get("attention_mask")
    if embeddings is None or mask is None:
        return arguments, given
    width = mask.shape[1]
    padding = width - mask.long().sum(1, keepdim=True)
    places = (torch.arange(width, device=mask.device)[None] - padding) % width
    moved = embeddings.gather(1, places[..., None].expand_as(embeddings))
    shown = mask.gather(1, places)
    positions = (shown.long().cumsum(1) - 1).clamp(min=0)
    return arguments, {**given, "inputs_embeds": moved, "attention_mask": shown, "position_ids": positions}


ADAPTER = AdapterFormat(
    library="peft",
    weights=peft_adapter.MERGING.weights,
    save=peft_adapter.save,
    merge=None,
    usage_import=peft_adapter.MERGING.usage_import,
    usage_load=peft_adapter.MERGING.usage_load,
)
"""What stands before a row's tokens is no part of any weight: it cannot be merged."""
