"""From examples to tensors: a rank's examples laid out on micro-batches, and collated.

What an example holds is its task's business; it is asked how long it is, how many losses it has, and for its tensors.
"""
