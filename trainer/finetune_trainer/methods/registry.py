"""The methods by name. A new method is a module beside this one, a line here and a row in finetune_api/method.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from finetune_api.tuning import Method
from finetune_trainer.methods import features, freeze, full, ia3, lora, prefix_tuning, prompt_tuning, setfit
from finetune_trainer.methods.base import TuningMethod
from finetune_trainer.methods.phases import Phases, freeze_never_opened
from finetune_trainer.model.head import HeadPolicy

LISTED = (
    full.METHOD,
    freeze.METHOD,
    features.METHOD,
    setfit.METHOD,
    lora.METHOD,
    ia3.METHOD,
    prompt_tuning.METHOD,
    prefix_tuning.METHOD,
)
METHODS: dict[str, TuningMethod] = {method.name: method for method in LISTED}


def method_for(method: Method) -> TuningMethod:
    """The value of a job's spec.method; the contract lets no other type through."""
    return METHODS[method.type]


def packages() -> tuple[str, ...]:
    """What some method or other needs beside torch and transformers."""
    return tuple(dict.fromkeys(package for method in METHODS.values() for package in method.packages))


def adapter_files() -> tuple[str, ...]:
    """The files of weights that some method or other writes instead of a model's own."""
    return tuple(method.adapter.weights for method in METHODS.values() if method.adapter)


def identity_fields() -> dict[str, str]:
    """Where the user writes what must match on resume, by the name that checkpoints store."""
    return {name: setting.field for method in METHODS.values() for name, setting in method.identity.items()}


def head_of(method: Method, head: HeadPolicy) -> HeadPolicy:
    """The head that the method gives the model of a task with this one."""
    chosen = method_for(method)
    return chosen.head(head, chosen.settings(method))


def apply_method(model: Any, method: Method, head: HeadPolicy, seed: int) -> Any:
    """The model with exactly the method's weights trainable.

    Raises JobError naming the field that does not fit the model.
    """
    chosen = method_for(method)
    return chosen.apply(model, chosen.settings(method), head, seed)


@contextlib.contextmanager
def untuned(model: Any, method: Method) -> Iterator[None]:
    """Within, a model that has made no step answers as its base: without virtual tokens, which are never without
    effect. What the other methods add starts without any.
    """
    chosen = method_for(method)
    with model.disable_adapter() if chosen.extra_positions(chosen.settings(method)) else contextlib.nullcontext():
        yield


def phases_of(model: Any, method: Method, head: HeadPolicy, rounds: Sequence[tuple[int, int]]) -> tuple[Phases, ...]:
    """What each step trains of the model that `apply_method` gave, round by round: (steps per epoch, steps) of each."""
    chosen = method_for(method)
    settings = chosen.settings(method)
    openings = [chosen.openings(model, settings, head, steps_per_epoch) for steps_per_epoch, _ in rounds]
    freeze_never_opened(model, [(listed, steps) for listed, (_, steps) in zip(openings, rounds, strict=True)])
    return tuple(Phases(model, listed, rests=chosen.rests(settings)) for listed in openings)
