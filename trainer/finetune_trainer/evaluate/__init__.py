"""Judge a model: metrics that stream (no logits are kept), confidence intervals, and the loop over the held-out
rows.
"""
