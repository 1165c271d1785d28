"""`finetune run`: a manifest carried out on this machine."""
