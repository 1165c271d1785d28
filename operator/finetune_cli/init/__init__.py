"""`finetune init`: a manifest from a data file."""
