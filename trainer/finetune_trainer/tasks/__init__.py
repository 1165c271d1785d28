"""What a model can learn to do. A task turns rows into examples, and says what is wrong with a row; without torch.

The prepare step checks every row with the same functions that the loop encodes with, so that what it lets pass can be
learned. The half that computes (the loss) is in `batching.py`, which only the loop imports.
"""

from finetune_trainer.tasks.base import IGNORE, Example, Task, Unlearnable, learned_ends, with_name
from finetune_trainer.tasks.registry import task_for

__all__ = ["IGNORE", "Example", "Task", "Unlearnable", "learned_ends", "task_for", "with_name"]
