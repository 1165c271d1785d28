"""The step before the workers: checks storage, credentials, model, files, columns, labels and rows, and profiles the
data.
"""

from finetune_trainer.prepare.command import main
from finetune_trainer.prepare.pipeline import prepare
from finetune_trainer.stream.profile import Profile, load_profile

__all__ = ["Profile", "load_profile", "main", "prepare"]
