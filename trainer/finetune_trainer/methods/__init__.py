"""How to tune: which weights are trained, how they are kept, and how they are written. One value a method."""

from finetune_trainer.methods.base import AdapterFormat, TuningMethod
from finetune_trainer.methods.phases import Phases
from finetune_trainer.methods.registry import (
    METHODS,
    adapter_files,
    apply_method,
    head_of,
    identity_fields,
    method_for,
    packages,
    phases_of,
    untuned,
)

__all__ = [
    "METHODS",
    "AdapterFormat",
    "Phases",
    "TuningMethod",
    "adapter_files",
    "apply_method",
    "head_of",
    "identity_fields",
    "method_for",
    "packages",
    "phases_of",
    "untuned",
]
