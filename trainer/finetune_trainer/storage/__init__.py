"""Object storage behind one small protocol: S3-compatible servers and folders, conditional writes, clear errors."""

from finetune_trainer.storage.base import Location, ObjectInfo, ObjectStore, Read, Unfinished
from finetune_trainer.storage.errors import blaming
from finetune_trainer.storage.open import location, open_store
from finetune_trainer.storage.s3.credentials import trust

__all__ = ["Location", "ObjectInfo", "ObjectStore", "Read", "Unfinished", "blaming", "location", "open_store", "trust"]
