"""Checkpoints: saved in the background, committed by a manifest written last and once, verified before they are used
(I5).
"""

from finetune_trainer.checkpoint.checkpointer import Checkpointer, Generation
from finetune_trainer.checkpoint.compare import environment
from finetune_trainer.checkpoint.snapshot import CheckpointRef, Snapshot

__all__ = ["CheckpointRef", "Checkpointer", "Generation", "Snapshot", "environment"]
