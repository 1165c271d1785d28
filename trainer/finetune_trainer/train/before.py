"""What a result is compared with, on the rows that it is judged by: the model before its first step, where it has a
trained head of the task, and the best answer that does not look at the row.

The model is judged once: what it came to is in the state of the run. The constant answer costs nothing: it is counted
where rows are judged anyway.
"""

from __future__ import annotations

import math

from finetune_api.report import Stage
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.methods import untuned
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.session import Session

BASE, CONSTANT = "base", "constant"
"""In TrainState.before: split -> figures."""


def judge_base(s: Session) -> None:
    """Judge the model before its first step, on the rows of the final evaluation and on the sets. Raises Stopped.

    Collective.
    """
    known = s.state.before.get(BASE, {})
    splits = [split for split in (s.data.result_split, *s.data.sets) if split and split not in known]
    if not s.compares or not s.knows_task or s.state.step or not splits:
        return
    s.progress.stage(Stage.EVALUATING)
    with s.progress.clock("evaluate"), untuned(s.model, s.config.method):
        decision = _decision(s)
        for split in splits:
            tally = judge_beside(s, split, {} if split == "validation" else decision, strict=False)
            note(s, BASE, split, tally)
            if split == "validation":
                s.events.add("evaluation", 0, **tally.metrics())
                s.progress.judged_before(tally.metrics(), s.evaluator.metric)


def _decision(s: Session) -> Decision:
    """How outputs become answers, chosen on validation rows as a tuned model's are, where there is a choice."""
    chooses = bool(s.data.task.tally(s.data.facts, {}).decision())
    if not chooses or not s.data.rows_in("validation"):
        return s.data.task.undecided
    return s.evaluator.judge("validation", 0, strict=False).decision() or s.data.task.undecided


def judge_beside(
    s: Session, split: str, decision: Decision, *, strict: bool = True, worst: Worst | None = None
) -> Tally:
    """Judge the model; the constant answer too, where the result is to be compared with it there and it is not yet
    known. Collective.
    """
    wanted = s.compares and split == s.data.result_split and split not in s.state.before.get(CONSTANT, {})
    constant = s.evaluator.constant_tally() if wanted else None
    tally = s.evaluator.judge(split, s.state.step, decision, strict=strict, constant=constant, worst=worst)
    if constant is not None:
        note(s, CONSTANT, split, constant)
    return tally


def note(s: Session, kind: str, split: str, tally: Tally) -> None:
    """Keep what was found: it need not be found again."""
    left_out = s.data.constant.leaves_out if s.data.constant and kind == CONSTANT else ()
    found = {name: value for name, value in figures(tally).items() if name not in left_out}
    s.state.before.setdefault(kind, {})[split] = found


def figures(tally: Tally) -> dict[str, float]:
    """Metrics and bounds, those that are numbers."""
    return {**_numbers(tally.metrics()), **bounds(tally)}


def bounds(tally: Tally) -> dict[str, float]:
    """Those that are numbers."""
    return _numbers(tally.intervals())


def _numbers(found: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
