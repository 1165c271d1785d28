"""The end of a round that belongs to a fold: its rows are judged, once, and the next round begins.

Nothing is chosen by the rows that judge: the weights are those of the round's last step, and outputs become answers as
the validation rows have it, where there are any, else as they do without a choice.
"""

from __future__ import annotations

from finetune_api.report import Stage
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.evaluation import NONE
from finetune_trainer.train.out_of_fold import store_answers
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
    s.events.add("fold", step, fold=part.fold, **tally.metrics())
    s.next_round()
    s.save(wait=True, moved=True)


def _decision(s: Session) -> Decision:
    """How outputs become answers: as the validation rows choose it."""
    task, data = s.data.task, s.data
    if not data.rows_in("validation") or not task.tally(data.facts, NONE).decision():
        return task.undecided
    return s.evaluator.judge("validation", s.state.step).decision()
