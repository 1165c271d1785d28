"""The end of a round that belongs to a fold: its rows are judged, once, and the next round begins.

Nothing is chosen by the rows that judge: the weights are those of the round's last step, and outputs become answers as
the validation rows have it, where there are any, else as they do without a choice.
"""

from __future__ import annotations

from finetune_api.report import Stage
from finetune_trainer.output.result import Folds
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.evaluation import NONE
from finetune_trainer.train.out_of_fold import NAME, store_answers
from finetune_trainer.train.session import Session


def end_fold(s: Session) -> None:
    """Judge the round's fold, keep what it came to, and begin the next round; all of it is in one checkpoint.

    Raises Stopped on all ranks together: then the fold is judged anew by the next attempt. Collective.
    """
    part, step = s.round, s.state.step
    assert part.judged is not None
    s.progress.stage(Stage.EVALUATING)
    with s.progress.clock("evaluate"), s.judged_weights():
        decision = _decision(s)
        tally = s.evaluator.judge(part.judged, step, decision)
        answers = store_answers(s, part, decision)
    s.folds.add(tally, s.data.rows_in(part.judged), decision, answers)
    tell_folds(s)
    s.events.add("fold", step, fold=part.fold, **tally.metrics())
    s.next_round()
    s.save(wait=True, moved=True)


def tell_folds(s: Session) -> None:
    """Report what they came to so far."""
    if s.folds_wanted:
        s.progress.report(folds=s.folds.scores(s.folds_wanted, s.evaluator.metric))


def folds_result(s: Session) -> Folds | None:
    """For the report; None of a job without folds."""
    found = s.folds
    if found.pooled is None:
        return None
    data = s.data
    pooled = data.task.tally(data.facts, data.task.undecided)
    pooled.vector[:] = found.pooled
    return Folds(
        rows=tuple(fold.rows for fold in found.done),
        metrics=tuple(fold.metrics for fold in found.done),
        mean=found.mean(),
        deviation=found.deviation(),
        pooled={**pooled.metrics(), **pooled.intervals()},
        decided=_said_of_decision(s),
        predictions=NAME if any(fold.predictions for fold in found.done) else None,
    )


def _chooses(s: Session) -> bool:
    """Whether the task leaves something to be chosen by the rows that are judged."""
    return bool(s.data.task.tally(s.data.facts, NONE).decision())


def _said_of_decision(s: Session) -> str | None:
    if not _chooses(s):
        return None
    if s.data.rows_in("validation"):
        return "From when on an answer counts was chosen for each fold by the validation rows, which are in none."
    return (
        "From when on an answer counts was not chosen, since there are no validation rows that are in no fold to choose"
        " it by."
    )


def _decision(s: Session) -> Decision:
    """How outputs become answers: as the validation rows choose it."""
    task, data = s.data.task, s.data
    if not data.rows_in("validation") or not _chooses(s):
        return task.undecided
    return s.evaluator.judge("validation", s.state.step).decision()
