"""The final evaluations of the weights that are the result: on the test rows, and on each set of spec.evaluation.sets.

They choose nothing: how outputs become answers was chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune_api.report import Stage
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.evaluate.worst import Kept, Worst
from finetune_trainer.output.judged import Scores, in_short
from finetune_trainer.stream.splits import SET
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.session import Session
from finetune_trainer.train.wrong_answers import keeper


@dataclass(frozen=True, slots=True)
class Final:
    """`test`: the tally of the test rows, if there are any; `again`: without them, that of the validation rows;
    `kept`: the rows of these that were answered most wrong; `sets`: by the name of the set.
    """

    test: Tally | None = None
    again: Tally | None = None
    kept: Sequence[Kept] = ()
    sets: Mapping[str, Scores] = field(default_factory=dict)


def judge_result(s: Session, decision: Decision) -> Final:
    """Judge the model as it is. Raises Stopped. Collective."""
    worst, test, again = keeper(s), None, None
    looks = worst is not None and s.data.rows_in("validation")
    if not s.data.rows_in("test") and not looks and not s.data.sets:
        return Final()
    s.progress.stage(Stage.TESTING)
    with s.progress.clock("evaluate"):
        if s.data.rows_in("test"):
            test = _test(s, decision, worst)
        elif looks:  # once more, by the weights that are the result: its figures are known, its wrong answers are not
            again = s.evaluator.judge("validation", s.state.step, decision, worst=worst)
        kept = worst.merged(s.ranks) if worst is not None else []
        return Final(test, again, kept, {split.removeprefix(SET): _set(s, split, decision) for split in s.data.sets})


def _test(s: Session, decision: Decision, worst: Worst | None) -> Tally:
    tally = s.evaluator.judge("test", s.state.step, decision, worst=worst)
    s.progress.report(test={**tally.metrics(), **tally.intervals()})
    s.events.add("test", s.state.step, **tally.metrics())
    return tally


def _set(s: Session, split: str, decision: Decision) -> Scores:
    """A set need not be like the rows that were learned from: what is no number there does not end the run."""
    tally = s.evaluator.judge(split, s.state.step, decision, strict=False)
    scores = Scores(s.data.rows_in(split), {**tally.metrics(), **tally.intervals()})
    name = split.removeprefix(SET)
    s.events.add("set", s.state.step, name=name, **tally.metrics())
    known = tuple(s.progress.last_report.sets or ()) if s.first else ()
    s.progress.report(sets=(*known, in_short(name, scores, s.evaluator.metric)))
    return scores
