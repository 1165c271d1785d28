"""Faster kernels for training on CPUs; what is computed, and in which precision, stays the same."""

from __future__ import annotations

import logging
from typing import Any

from finetune_trainer.cpu import dropout, linear

__all__ = ["quicken"]

log = logging.getLogger(__name__)


def quicken(model: Any, precision: str) -> None:
    """Give a model on the CPU the faster kernels that fit this machine and `precision`, in place. Never fails: it may do nothing."""
    try:
        dropout.install()
        if precision == "fp32" and linear.pays():
            log.info("%d linear layers are multiplied by oneDNN", linear.replace(model))
    except Exception as error:
        log.warning("torch's own kernels are used (%s: %s)", type(error).__name__, error)
