"""The names under which checkpoints hold the tensors of a model and its optimizer, where a rank has them whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_NUMBERS = {int: torch.int64, float: torch.float64}
"""How plain numbers of an optimizer's state are stored; its tensors have other types."""


def of_model(model: Any) -> dict[str, torch.Tensor]:
    """What is trained, as model.<parameter>."""
    return {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}


def into_model(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy them into what is trained."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[f"model.{name}"])


def of_optimizer(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state as optimizer.<parameter>.<what>; empty before the first update. Plain numbers become scalars."""
    found = {}
    for name, parameter in model.named_parameters():
        for what, value in optimizer.state.get(parameter, {}).items():
            if value is not None:  # sgd without momentum says so
                found[f"optimizer.{name}.{what}"] = _as_tensor(value)
    return found


def into_optimizer(model: Any, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take the state over in place of what there is, on each parameter's device; plain numbers come back as such."""
    optimizer.state.clear()
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            name, what = key.removeprefix("optimizer.").rsplit(".", 1)
            states.setdefault(name, {})[what] = value
    for name, parameter in model.named_parameters():
        if name in states:
            optimizer.state[parameter] = {
                what: _as_it_was(value, parameter.device) for what, value in states[name].items()
            }


def _as_tensor(value: torch.Tensor | float) -> torch.Tensor:
    """Adafactor counts its steps in Python."""
    if isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=_NUMBERS[type(value)])


def _as_it_was(value: torch.Tensor, device: torch.device) -> torch.Tensor | float:
    if value.dim() == 0 and value.dtype in _NUMBERS.values():
        number: float = value.item()
        return number
    return value.to(device=device, copy=True)
