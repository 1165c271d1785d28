"""What a task makes of a model's head: which class has it, where its weights come from, how methods treat it.

A value that tasks hand to the model and the methods, so that neither knows a task.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.pooling import Pooled, refusal

BARE = "AutoModel"
"""transformers' Auto class for a model without any head."""


def _no_config(labels: Sequence[str]) -> dict[str, Any]:
    return {}


def _no_refusal(config: Mapping[str, Any], source: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class HeadPolicy:
    """Part of a task's value."""

    serves: str
    """What a model with this head is for, in messages."""
    class_name: re.Pattern[str]
    """The names of transformers' classes that have it."""
    auto_class: str
    """transformers' Auto class, for whoever uses the export."""
    peft_task: str
    """What peft calls a model with it; empty where it has no name for such."""
    is_new: bool = False
    """The head is the task's own, with a pooler before it: the base need not have one, and adapters leave it to be
    trained whole. Else it is a layer of the base like any other, as a language model's output projection is."""
    rebuilt: bool = False
    """A base may come without it (saved as a bare encoder) where its output layer shares the embeddings' weights: the
    few layers before that are learned anew, and told by `learned_anew`."""
    writes: bool = False
    """It writes text: a cache is of no use in training, and no pad token is needed."""
    config: Callable[[Sequence[str]], dict[str, Any]] = _no_config
    """(classes) -> fields of the model's config that a new head decides."""
    pooled: Pooled | None = None
    """A head of our own on the model's bare form, in place of transformers' class (pooling.py)."""
    refusal: Callable[[Mapping[str, Any], str], str | None] = _no_refusal
    """(config.json, the source of the model's code) -> why the model does not serve, or None."""

    def may_lack(self, name: str, prefix: str) -> bool:
        """Whether a base may come without this weight of a model whose base stands under `prefix`: it is learned anew.

        By its place alone, since each family has names of its own for a head.
        """
        if not name.startswith(f"{prefix}."):
            return self.is_new or self.rebuilt
        return self.is_new and name.startswith(f"{prefix}.pooler.")

    def belongs_to(self, class_names: Sequence[str]) -> bool:
        """Whether a model that was saved as one of these classes has this head."""
        return self.pooled is None and any(self.class_name.fullmatch(str(name)) for name in class_names)

    def on_pooled(self, pooled: Pooled) -> HeadPolicy:
        """For the same outputs, on pooled ones of a bare model."""
        return dataclasses.replace(self, pooled=pooled, auto_class=BARE, refusal=lambda config, source: refusal(config))


ANEW = "finetune_learned_anew"
"""The attribute of a model that keeps which weights of a head its files lack."""


def learned_anew(model: Any) -> tuple[str, ...]:
    """The weights of a rebuilt head that the base came without."""
    return tuple(getattr(model, ANEW, ()))


def base_name(model: Any) -> str:
    """The name of the part below the head: all of a pre-trained model, whatever it was trained to do.

    Raises JobError where a class keeps none apart, since its head could not be told from the rest.
    """
    name: str = model.base_model_prefix
    if name not in dict(model.named_children()):
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"{type(model).__name__} does not keep its head apart from the rest of the model",
            field="spec.model.uri",
        )
    return name
