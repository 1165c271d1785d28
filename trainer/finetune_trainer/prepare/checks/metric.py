"""The metric that chooses: some have a meaning for some data only."""

from __future__ import annotations

from finetune_api.exits import JobError, Reason
from finetune_api.metrics import AUTO
from finetune_api.run import RunConfig
from finetune_trainer.tasks.base import JobFacts, Task


def check_metric(config: RunConfig, task: Task, facts: JobFacts) -> None:
    """Raises JobError where the wanted metric is none that these classes have."""
    wanted = config.evaluation.metric
    if wanted == AUTO or wanted in (names := [*task.tally(facts, {}).metrics()]):
        return
    raise JobError(
        Reason.INVALID_CONFIG,
        f"{wanted} has no meaning for {len(facts.labels)} classes; there are {', '.join(names)}",
        field="spec.evaluation.metric",
        hint="Choose one of these, or leave it out.",
    )
