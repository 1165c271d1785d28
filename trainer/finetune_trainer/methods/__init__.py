"""How to tune: which weights are trained, how they are kept, and how they are written. One value a method."""

from finetune_trainer.methods.base import AdapterFormat, TuningMethod
from finetune_trainer.methods.registry import METHODS, PACKAGES, apply_method, method_for

__all__ = ["METHODS", "PACKAGES", "AdapterFormat", "TuningMethod", "apply_method", "method_for"]
