"""Linear layers multiplied by oneDNN, where MKL holds back.

On x86, torch multiplies float32 matrices by MKL, which leaves AVX-512 unused on processors that are not Intel's: 100 to
200 GFLOP/s on two cores of an AMD EPYC, where oneDNN, which torch carries too, made 180 to 450 with the same rounding
error. torch has no setting for this. The operation is the one that its compiler calls for linear layers on CPUs; it is
not part of torch's public interface, so `is_faster` tries it first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias [out]: [..., out]. float32, any strides, no gradient."""
    if not x.numel():  # oneDNN refuses it
        return nn.functional.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    """As torch.nn.functional.linear; keeps only what the gradients asked for need."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, gradients[0].shape[-1])
        of_x = product(gradients[0], weight.t()) if ctx.needs_input_grad[0] else None
        of_weight = product(rows.t(), x.reshape(-1, x.shape[-1]).t()) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


class OneDnnLinear(nn.Linear):
    """A linear layer in all but its kernel."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


def replace(model: nn.Module) -> int:
    """Turn the model's float32 linear layers into OneDnnLinear in place, parameters and names untouched; how many."""
    found = [m for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.float32]
    for module in found:
        module.__class__ = OneDnnLinear
    return len(found)


def is_faster(cpuinfo: Path = Path("/proc/cpuinfo"), capability: str | None = None) -> bool:
    """Whether oneDNN is here, works, and beats torch's own choice: with AVX-512, on processors that are not Intel's."""
    if (capability or torch.backends.cpu.get_cpu_capability()) != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    if "GenuineIntel" in cpuinfo.read_text():
        return False
    x, weight, bias = torch.ones(2, 3), torch.full((4, 3), 0.5), torch.ones(4)
    return bool((product(x, weight, bias) == 2.5).all())
