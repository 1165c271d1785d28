"""What makes training on CPUs faster; what is computed, and in which precision, stays the same."""

from __future__ import annotations

import logging
from typing import Any

from finetune_trainer.cpu import dropout, linear, memory

__all__ = ["use_fast_kernels"]

log = logging.getLogger(__name__)


def use_fast_kernels(model: Any, precision: str) -> None:
    """Give a model on the CPU the faster kernels that fit this machine and `precision`, in place.

    Never fails: where they do not work, torch's own stay.
    """
    try:
        memory.keep()
        dropout.install()
        if precision == "fp32" and linear.is_faster():
            log.info("%d linear layers are multiplied by oneDNN", linear.replace(model))
    except Exception as error:
        log.warning("training goes on without the faster kernels (%s: %s)", type(error).__name__, error)
