"""The optimizer of a job: a row of finetune_api.optimizers made real over what is trained.

Biases and norm weights (one dimension) are not decayed. The step sets each group's rate: the schedule's, by the group's
`share`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from finetune_api.tuning import Training
from finetune_trainer.optimizers.lion import Lion

Groups = list[dict[str, Any]]


def optimizer_for(model: Any, training: Training, depths: Mapping[str, int] | None = None) -> torch.optim.Optimizer:
    """The one that spec.training names, over what requires gradients.

    `depths`: how deep each parameter lies, the head deepest; with training.layerDecay each layer's share of the rate is
    that of the layer behind it times the decay.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decay, last = training.layer_decay or 1.0, max((depths or {}).values(), default=0)
    groups = [
        {
            "params": [
                p
                for name, p in trained
                if decays(p) is matrices and own_share(p) == share and (depths or {}).get(name, 0) == depth
            ],
            "weight_decay": training.weight_decay if matrices else 0.0,
            "share": share * decay ** (last - depth),
        }
        for depth in sorted({*(depths or {"": 0}).values()})
        for matrices in (True, False)
        for share in sorted({own_share(p) for _, p in trained})
    ]
    row = training.optimizer_info
    beta1 = row.beta1 if training.beta1 is None else training.beta1
    beta2 = row.beta2 if training.beta2 is None else training.beta2
    return _MADE[row.name]([g for g in groups if g["params"]], beta1 or 0.0, beta2 or 0.0)


def decays(parameter: Any) -> bool:
    """Matrices do, but for those that their method has marked: at zero they would not be without effect."""
    return bool(parameter.dim() > 1) and getattr(parameter, "decays", True)


def own_share(parameter: Any) -> float:
    """Of the rate, as its method has marked it; 1 for most."""
    return float(getattr(parameter, "rate_share", 1.0))


def _adamw(groups: Groups, beta1: float, beta2: float) -> torch.optim.Optimizer:
    """Fused: one pass over memory for each tensor."""
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=1e-8, fused=True)


def _adafactor(groups: Groups, beta1: float, beta2: float) -> torch.optim.Optimizer:
    """By the schedule's rate, as AdamW, not by steps relative to the weights' size: adapters start at zero."""
    from transformers.optimization import Adafactor  # late: it brings much else

    return Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)  # type: ignore[no-untyped-call]


def _lion(groups: Groups, beta1: float, beta2: float) -> torch.optim.Optimizer:
    return Lion(groups, lr=0.0, betas=(beta1, beta2))


def _sgd(groups: Groups, beta1: float, beta2: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.0, momentum=beta1, fused=True)


_MADE: Mapping[str, Callable[[Groups, float, float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "lion": _lion,
    "sgd": _sgd,
}
