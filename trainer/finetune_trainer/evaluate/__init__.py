"""Judge a model: metrics that stream (no logits are kept), confidence intervals, and the loop over the held-out
rows.
"""

from finetune_trainer.evaluate.loop import Stopped, evaluate
from finetune_trainer.evaluate.tally import ClassTally, LanguageTally, Tally, tally_for

__all__ = ["ClassTally", "LanguageTally", "Stopped", "Tally", "evaluate", "tally_for"]
