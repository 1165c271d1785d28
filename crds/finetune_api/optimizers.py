"""The optimizers: one row each. What the trainer makes of a row stands in finetune_trainer/optimizers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OptimizerInfo:
    """What all parts agree on about an optimizer."""

    name: str
    what: str  # for people
    rate_factor: float  # on the learning rate that task and method have with AdamW
    beta1: float | None = None  # share that the running mean of gradients keeps at each step; None: it has none
    beta2: float | None = None  # the same of the longer running mean


DEFAULT_OPTIMIZER = "adamw"

OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        OptimizerInfo(
            "adamw", "Adam with decoupled weight decay (Loshchilov & Hutter 2019), two values a weight", 1.0, 0.9, 0.999
        ),
        OptimizerInfo("adafactor", "second moments by rows and columns (Shazeer & Stern 2018), next to no memory", 1.0),
        OptimizerInfo("lion", "the sign of a running mean (Chen et al. 2023), one value a weight", 0.2, 0.9, 0.99),
        OptimizerInfo("sgd", "plain gradients with momentum beta1, one value a weight", 200.0, 0.9),
    )
}
"""Rates: Lion takes a third to a tenth of AdamW's (Chen et al. 2023, section 5); plain gradients, clipped to a norm of
1, are far shorter than AdamW's steps, which are about the rate for each weight."""
