"""From examples to tensors: a global batch laid out on micro-batches, and collated."""
