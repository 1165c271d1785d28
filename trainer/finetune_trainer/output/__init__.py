"""What a successful run leaves at output.uri: the model, its card, its report, its events, and last of all result.json.

The model itself is written by `output.model`, which needs torch; all else here does not.
"""

from finetune_trainer.output.commit import Completed, commit, completed
from finetune_trainer.output.events import EventLog
from finetune_trainer.output.export import export
from finetune_trainer.output.provenance import versions
from finetune_trainer.output.result import ClassScore, Pairs, Result, Sample, Table, WrongAnswer

__all__ = [
    "ClassScore",
    "Completed",
    "EventLog",
    "Pairs",
    "Result",
    "Sample",
    "Table",
    "WrongAnswer",
    "commit",
    "completed",
    "export",
    "versions",
]
