"""Data as a global order of rows: found, cut into blocks and counted once, then streamed with a cursor."""

from finetune_trainer.stream.batch import Batch, Cursor
from finetune_trainer.stream.blocks import sweep_cache
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile, load_profile
from finetune_trainer.stream.stream import Stream

__all__ = ["Batch", "Cursor", "DataManifest", "Profile", "Stream", "load_profile", "sweep_cache"]
