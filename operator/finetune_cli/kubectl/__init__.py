"""`kubectl finetune`: jobs in a cluster, as people want to see them."""
