"""Where a model is cut: before the head, where that stands apart; else behind the last of the layers in which nothing
is trained, and before which nothing is either.

A cut records what the last frozen layer gives; where a batch brings that along, all frozen layers give it at once
instead of computing anything. Layers, names and weights stay as they are: a batch that brings nothing is computed as
ever. Whether a model can be cut so is found out by trying: see `trial`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from finetune_api.exits import JobError
from finetune_trainer.methods.modules import depths, layer_list, without_adapter
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.pooled import PooledModel
from finetune_trainer.trunk.kept_example import KEPT

Build = Callable[[Sequence[torch.Tensor | None]], Any]


class CannotCut(Exception):
    """The frozen part of this model cannot be computed apart from the rest; the message says why."""


def frozen_layers(model: Any, head: HeadPolicy) -> Sequence[Any]:
    """The leading layers in which nothing is trained, and before which nothing is; empty where the first one is."""
    try:
        deep = depths(model, head)
        _, layers = layer_list(without_adapter(model))
    except JobError:
        return ()
    trained = [deep[name] for name, weight in model.named_parameters() if weight.requires_grad]
    return list(layers)[: max(0, min(trained, default=0) - 1)]


def cut_of(model: Any, head: HeadPolicy) -> Cut | None:
    """Behind all that is frozen; None where nothing that is worth it lies before all that is trained."""
    if isinstance(model, PooledModel) and not any(weight.requires_grad for weight in model.trunk.parameters()):
        return PooledCut(model)
    layers = frozen_layers(model, head)
    return LayersCut(model, layers) if layers else None


class Cut(ABC):
    """A model that takes what was kept in place of computing it. For one thread at a time."""

    alone: ClassVar[bool]
    """Whether what is kept is all that the rest of the model takes."""

    def __init__(self, model: Any, depth: int) -> None:
        self.model, self.depth = model, depth
        self._hooks = [model.register_forward_pre_hook(self._take, with_kwargs=True)]

    @abstractmethod
    def tried(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """As `computed`, the first time. Raises CannotCut."""

    @abstractmethod
    def computed(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The tensors that the frozen part gives; nothing behind it is computed. Raises CannotCut."""

    @abstractmethod
    def given(self, kept: Mapping[str, torch.Tensor], inputs: dict[str, Any]) -> dict[str, Any]:
        """What the model is called with instead of `inputs`, where a batch brings what was kept."""

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _take(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        kept = {name: value for name, value in kwargs.items() if name.startswith(KEPT)}
        if not kept:
            return None
        return args, self.given(kept, {name: value for name, value in kwargs.items() if name not in kept})


class PooledCut(Cut):
    """Between the pooling and the head."""

    alone = True

    def __init__(self, model: PooledModel) -> None:
        super().__init__(model, -1)

    def tried(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The vectors, [rows, width]."""
        return [self.model.pooled(**inputs)]

    computed = tried

    def given(self, kept: Mapping[str, torch.Tensor], inputs: dict[str, Any]) -> dict[str, Any]:
        """The vectors alone."""
        return {"pooled": kept[f"{KEPT}0"]}


class LayersCut(Cut):
    """Behind layers, which all give at once what the last of them gave."""

    alone = False

    def __init__(self, model: Any, layers: Sequence[Any]) -> None:
        super().__init__(model, len(layers))
        self._layers, self._last = layers, layers[-1]
        self._given: Any = None
        self._build: Build = lambda tensors: None
        self._form = ""
        self._tensors = self._calls = 0
        for layer in layers:
            layer.forward = self._or_given(layer.forward)
        self._hooks.append(model.register_forward_hook(self._drop, always_call=True))

    def remove(self) -> None:
        """Leave the model as it was."""
        super().remove()
        for layer in self._layers:
            del layer.forward

    def tried(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """As `computed`, by a whole forward pass, which also tells how the layers are called. Raises CannotCut."""
        outputs: list[Any] = []
        hook = self._last.register_forward_hook(lambda module, given, output: outputs.append(output))
        try:
            self.model(**inputs)
        finally:
            hook.remove()
        if not outputs:
            raise CannotCut("its layers are not called as modules")
        self._calls = len(outputs)  # one layer may be passed through several times, as in ALBERT
        tensors, self._build, self._form = taken_apart(outputs[-1])
        self._tensors = len(tensors)
        return tensors

    def computed(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The tensors that the last frozen layer gives; nothing behind it is computed. Raises CannotCut."""
        outputs: list[Any] = []

        def reached(module: Any, given: Any, output: Any) -> None:
            outputs.append(output)
            if len(outputs) == self._calls:
                raise _Reached

        hook = self._last.register_forward_hook(reached)
        try:
            self.model(**inputs)
        except _Reached:
            tensors, _, form = taken_apart(outputs[-1])
            if form == self._form:
                return tensors
        finally:
            hook.remove()
        raise CannotCut("its layers do not give the same form for all rows")

    def _or_given(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return plain(*args, **kwargs) if self._given is None else self._given

        return forward

    def given(self, kept: Mapping[str, torch.Tensor], inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs, for what stands before the layers and for masks."""
        self._given = self._build([kept.get(f"{KEPT}{i}") for i in range(self._tensors)])
        return inputs

    def _drop(self, *_: Any) -> None:
        self._given = None


class _Reached(Exception):
    """The forward pass has come behind the last frozen layer."""


def taken_apart(output: Any) -> tuple[list[torch.Tensor], Build, str]:
    """The tensors in what a layer gives, what puts such tensors together again, and the form but for the tensors.

    Raises CannotCut for what is neither a tensor, a plain value, nor a tuple or list of these.
    """
    tensors: list[torch.Tensor] = []

    def part(value: Any) -> tuple[Build, str]:
        if isinstance(value, torch.Tensor):
            place = len(tensors)
            tensors.append(value)
            return (lambda given: given[place]), "*"
        if type(value) in (tuple, list):
            kind, parts = type(value), [part(each) for each in value]
            return (lambda given: kind(build(given) for build, _ in parts)), f"({','.join(form for _, form in parts)})"
        if value is None or isinstance(value, bool | int | float | str):
            return (lambda given: value), repr(value)
        raise CannotCut(f"its layers give a {type(value).__name__}")

    build, form = part(output)
    return tensors, build, form
