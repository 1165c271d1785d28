"""Whether the workers will be able to use the model: it is built here as they will build it, without its weights.

Headers of the weight files are compared with the built model: what is missing, has another shape or has no place in it
ends the job before an accelerator is asked for. So does a method that does not fit, and a tokenizer whose text has no
embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_api.status import Finding
from finetune_trainer.methods import method_for
from finetune_trainer.model import deferred_imports
from finetune_trainer.model.facts import FIELD, architecture
from finetune_trainer.model.fetch import stored_weights
from finetune_trainer.model.head import HeadPolicy, learned_anew
from finetune_trainer.prepare.checks.model import ModelFacts
from finetune_trainer.prepare.checks.without_effect import without_effect

BUFFERS = re.compile(r"(^|\.)(inv_freq|position_ids|masked_bias|bias|num_batches_tracked)$")
"""Left by older versions, and computed anew."""


@dataclass(frozen=True, slots=True)
class ModelFit:
    """`embeddings`: how many tokens the model knows; `beyond`: those of the tokenizer that it does not, by name."""

    embeddings: int
    beyond: Mapping[str, int]
    findings: tuple[Finding, ...]


def check_model_fits(config: RunConfig, head: HeadPolicy, facts: ModelFacts) -> ModelFit:
    """Build the model and look. Raises JobError: UnsupportedModel, InvalidConfig."""
    stored = stored_weights(config, revision=facts.revision)
    deferred_imports.import_modules([architecture(facts.config, head).module])
    from finetune_trainer.model.load import empty_model, token_embeddings

    model, unused = empty_model(facts.folder, head, stored)
    method = method_for(config.method)
    settings = method.settings(config.method)
    unfit = method.check(model, settings, head)
    idle = without_effect(config.training, model, head, rests=method.rests(settings))
    findings = (*_anew(model), *_unused(model, unused), *unfit, *idle)
    if config.training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"{type(model).__name__} cannot recompute its activations",
            field="spec.training.gradientCheckpointing",
            hint="Set it to false, or leave it out.",
        )
    embeddings = token_embeddings(model)
    beyond = facts.tokenizer.beyond(embeddings)
    words = [token for token in beyond if token not in facts.tokenizer.added]
    if words:
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"the tokenizer has tokens up to {max(beyond.values())} ({words[0]!r}, …), and the model has embeddings for"
            f" 0 to {embeddings - 1} only",
            field=FIELD,
            hint="Use the tokenizer that the model was made with, or resize the model's embeddings.",
        )
    return ModelFit(embeddings, beyond, findings)


def _anew(model: Any) -> list[Finding]:
    """Weights of a head that the model was saved without."""
    names = learned_anew(model)
    if not names:
        return []
    message = (
        f"The model was saved without its head: {len(names)} weights of {type(model).__name__} are learned anew"
        f" ({', '.join(names[:2])}, …), before an output layer that is its embeddings'. A model saved with its head"
        " needs fewer steps."
    )
    return [Finding(kind="NewHead", count=len(names), message=message[:384])]


def _unused(model: Any, names: Sequence[str]) -> list[Finding]:
    """Weights inside the layers that the model makes nothing of; heads of other tasks are passed over in silence."""
    inside = [name for name in names if re.search(r"\.\d+\.", name) and not BUFFERS.search(name)]
    if not inside:
        return []
    message = (
        f"{len(inside)} weights in the model's files have no place in {type(model).__name__} ({', '.join(inside[:2])},"
        " …) and are not used."
    )
    return [Finding(kind="UnusedWeights", count=len(inside), message=message[:384])]
