"""The names under which checkpoints hold the tensors of a model and its optimizer, where a rank has them whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_OPTIMIZER_STATE = ("exp_avg", "exp_avg_sq", "step")


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
    """The state as optimizer.<parameter>.<what>; empty before the first update."""
    found = {}
    for name, parameter in model.named_parameters():
        for what, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{name}.{what}"] = value
    return found


def into_optimizer(model: Any, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take the state over, on each parameter's device."""
    for name, parameter in model.named_parameters():
        state = {
            what: tensors[f"optimizer.{name}.{what}"]
            for what in _OPTIMIZER_STATE
            if f"optimizer.{name}.{what}" in tensors
        }
        if state:
            optimizer.state[parameter] = {
                what: value.to(device=parameter.device, copy=True) for what, value in state.items()
            }
