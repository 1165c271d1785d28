"""Judge a model: metrics that stream (no logits are kept), their intervals, and the loop over the held-out rows."""
