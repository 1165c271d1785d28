"""What makes a step of a gradient."""

from finetune_trainer.optimizers.build import optimizer_for

__all__ = ["optimizer_for"]
