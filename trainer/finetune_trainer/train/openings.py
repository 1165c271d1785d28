"""What people are told of parts that are trained later than the rest: an event, a line of the log, and the number of
trained weights in the status.
"""

from __future__ import annotations

import logging

from finetune_trainer.train.session import Session

log = logging.getLogger(__name__)


def tell_openings(s: Session, step: int) -> None:
    """After a step of the job: what it was the first to train. Each is told once, through any number of resumptions."""
    opened = s.phases.opened(s.round.step(step))
    for opening in opened:
        log.info("from step %d on %s is trained too", step, opening.part)
        s.events.add("opening", step, part=opening.part)
    if opened:
        tell_trained(s, step)


def tell_trained(s: Session, step: int) -> None:
    """How many weights this step trains."""
    s.progress.report(
        resolved=s.resolved.model_copy(update={"trainable_parameters": s.phases.trained(s.round.step(step))})
    )
