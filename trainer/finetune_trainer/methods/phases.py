"""What each step trains, where that changes: a pure function of the step (I3).

Whatever is trained at some step of the run requires gradients from the start and stands in every checkpoint, so that an
earlier one brings all of it back. Around a step, what that step does not train yet is shut: it gets no gradient, takes
no time in the backward pass, and the optimizer passes it over, so that its state starts with its first own step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from finetune_trainer.methods.base import Opening


def freeze_never_opened(model: Any, rounds: Sequence[tuple[Sequence[Opening], int]]) -> None:
    """Of what is trained later than the rest, freeze what opens in no round: (openings, steps) of each."""
    opened = {name for openings, steps in rounds for o in openings if o.step <= steps for name in o.names}
    later = {name for openings, _ in rounds for o in openings for name in o.names}
    for name in later - opened:
        model.get_parameter(name).requires_grad_(False)


class Phases:
    """Of a model in training. `rests`: parts in which a step trains nothing run in eval mode in that step.

    Parts that no step trains do not require gradients.
    """

    def __init__(self, model: Any, openings: Sequence[Opening], *, rests: bool) -> None:
        self._model, self._rests = model, rests
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._openings = [opening for opening in openings if opening.names & self._parameters.keys()]
        self._open: int | None = None
        self._resting: list[Any] = []

    @property
    def steady(self) -> bool:
        """Whether all steps train the same, and all else is the same in each of them."""
        return self._rests and not self._openings

    def opened(self, step: int) -> list[Opening]:
        """What this step is the first to train."""
        return [opening for opening in self._openings if opening.step == step]

    def trained(self, step: int) -> int:
        """How many weights this step trains."""
        shut = {id(parameter) for parameter in self._shut(step)}
        return sum(p.numel() for p in self._parameters.values() if id(p) not in shut)

    @contextlib.contextmanager
    def at(self, step: int) -> Iterator[None]:
        """For the time of a step."""
        shut = self._shut(step)
        gradients = [parameter.grad for parameter in shut]
        for parameter in shut:
            parameter.requires_grad_(False)
            parameter.grad = None
        try:
            self._rest(len(shut))
            yield
        finally:
            for parameter, gradient in zip(shut, gradients, strict=True):
                parameter.requires_grad_(True)
                parameter.grad = gradient

    def _shut(self, step: int) -> list[Any]:
        return [self._parameters[name] for opening in self._openings if opening.step > step for name in opening.names]

    def _rest(self, shut: int) -> None:
        """An evaluation puts all parts back into train mode."""
        if not self._rests:
            return
        if shut != self._open:
            self._model.train()
            self._open, self._resting = shut, list(resting(self._model))
        for module in self._resting:
            if module.training:
                module.eval()


def resting(module: Any) -> Iterator[Any]:
    """The largest parts in which nothing requires gradients. A part without weights goes by what it stands in: dropout
    beside trained weights is theirs.
    """
    for child in module.children():
        weights = list(child.parameters())
        if weights and not any(p.requires_grad for p in weights):
            yield child
        else:
            yield from resting(child)


def awake(module: Any) -> Iterator[Any]:
    """The module and all its parts but those that rest."""
    yield module
    asleep = set(map(id, resting(module)))
    for child in module.children():
        if id(child) not in asleep:
            yield from awake(child)
