"""Where a model is cut: behind the last of the layers in which nothing is trained, and before which nothing is either.

A cut records what the last frozen layer gives; where a batch brings that along, all frozen layers give it at once
instead of computing anything. Layers, names and weights stay as they are: a batch that brings nothing is computed as
ever. Whether a model can be cut so is found out by trying: see `trial`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from finetune_api.exits import JobError
from finetune_trainer.methods.modules import depths, layer_list
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.trunk.kept_example import KEPT

Build = Callable[[Sequence[torch.Tensor | None]], Any]


class CannotCut(Exception):
    """The frozen part of this model cannot be computed apart from the rest; the message says why."""


def frozen_layers(model: Any, head: HeadPolicy) -> Sequence[Any]:
    """The leading layers in which nothing is trained, and before which nothing is; empty where the first one is."""
    try:
        deep = depths(model, head)
        _, layers = layer_list(model.get_base_model() if hasattr(model, "peft_config") else model)
    except JobError:
        return ()
    trained = [deep[name] for name, weight in model.named_parameters() if weight.requires_grad]
    return list(layers)[: max(0, min(trained, default=0) - 1)]


class Cut:
    """A model cut behind these layers. For one thread at a time."""

    def __init__(self, model: Any, layers: Sequence[Any]) -> None:
        self.model, self.depth = model, len(layers)
        self._layers, self._last = layers, layers[-1]
        self._given: Any = None
        self._build: Build = lambda tensors: None
        self._form = ""
        self._tensors = self._calls = 0
        for layer in layers:
            layer.forward = self._or_given(layer.forward)
        self._hooks = [
            model.register_forward_pre_hook(self._take, with_kwargs=True),
            model.register_forward_hook(self._drop, always_call=True),
        ]

    def remove(self) -> None:
        """Leave the model as it was."""
        for layer in self._layers:
            del layer.forward
        for hook in self._hooks:
            hook.remove()

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

    def _take(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        kept = {name: value for name, value in kwargs.items() if name.startswith(KEPT)}
        if not kept:
            return None
        self._given = self._build([kept.get(f"{KEPT}{i}") for i in range(self._tensors)])
        return args, {name: value for name, value in kwargs.items() if name not in kept}

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
