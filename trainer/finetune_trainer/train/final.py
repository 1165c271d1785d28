"""The final evaluations of the weights that are the result: on the test rows, on each set of spec.evaluation.sets, and
on a draw of the training rows; and what they show.

They choose nothing: how outputs become answers was chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune_api.report import Stage
from finetune_api.status import Verdict
from finetune_trainer.evaluate import verdicts
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.evaluate.worst import Kept, Worst
from finetune_trainer.output.judged import Judged, Scores, in_short
from finetune_trainer.stream.splits import SET, rows_called
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.before import BASE, CONSTANT, figures, judge_beside
from finetune_trainer.train.chosen_weights import Chosen
from finetune_trainer.train.session import Session
from finetune_trainer.train.wrong_answers import keeper

SAMPLE = 1000
"""Training rows that are judged at the end, at most."""


@dataclass(frozen=True, slots=True)
class Final:
    """`test`: the tally of the test rows, if there are any; `again`: without them, that of the validation rows;
    `kept`: the rows of these that were answered most wrong.
    """

    test: Tally | None = None
    again: Tally | None = None
    kept: Sequence[Kept] = ()
    judged: Judged = field(default_factory=Judged)


def judge_result(s: Session, chosen: Chosen) -> Final:
    """Judge the model as it is. Raises Stopped. Collective."""
    own, worst = s.data.result_split, keeper(s)
    test, again, decision = None, None, chosen.decision
    if own is None and not s.data.sets:
        return Final()
    s.progress.stage(Stage.TESTING)
    with s.progress.clock("evaluate"):
        if own == "test":
            test = _test(s, decision, worst)
        elif own and worst is not None:  # once more, by the weights that are the result, for its wrong answers
            again = s.evaluator.judge("validation", s.state.step, decision, worst=worst)
        kept = worst.merged(s.ranks) if own and worst is not None else []
        sets = {split.removeprefix(SET): _set(s, split, decision) for split in s.data.sets}
        learned, naive = _learned(s, decision) if own else (None, {})
    base, constant = (s.state.before.get(kind, {}) for kind in (BASE, CONSTANT))
    judged = Judged(
        sets=sets,
        base={split: Scores(s.data.rows_in(split), found) for split, found in base.items()},
        constant=Scores(s.data.rows_in(own), constant[own]) if own and own in constant else None,
        constant_words=s.data.constant.words if s.data.constant else "",
        validation=Scores(s.data.rows_in("validation"), chosen.validation) if chosen.validation else None,
        learned=learned,
    )
    result = figures(test) if test is not None else chosen.validation
    told = tuple(found for found in _verdicts(s, judged, result, naive) if found is not None)
    s.progress.report(verdicts=told or None)
    return Final(test, again, kept, judged)


def _test(s: Session, decision: Decision, worst: Worst | None) -> Tally:
    tally = judge_beside(s, "test", decision, worst=worst)
    s.progress.report(test={**tally.metrics(), **tally.intervals()})
    s.events.add("test", s.state.step, **tally.metrics())
    return tally


def _set(s: Session, split: str, decision: Decision) -> Scores:
    """A set need not be like the rows that were learned from: what is no number there does not end the run."""
    tally = s.evaluator.judge(split, s.state.step, decision, strict=False)
    scores = Scores(s.data.rows_in(split), figures(tally))
    name = split.removeprefix(SET)
    s.events.add("set", s.state.step, name=name, **tally.metrics())
    known = tuple(s.progress.last_report.sets or ()) if s.first else ()
    s.progress.report(sets=(*known, in_short(name, scores, s.evaluator.metric)))
    return scores


def _learned(s: Session, decision: Decision) -> tuple[Scores, Mapping[str, float]]:
    """Of as many training rows as validation rows (else test rows): the model's figures, and those of the constant
    answer. Answers are made as those that they are compared with were.
    """
    held = "validation" if s.data.rows_in("validation") else "test"
    most = min(SAMPLE, s.data.rows_in(held), s.data.rows_in("train"))
    constant = s.evaluator.constant_tally()
    how = {} if held == "validation" else decision
    tally = s.evaluator.judge("train", s.state.step, how, strict=False, constant=constant, most=most)
    return Scores(most, figures(tally)), figures(constant) if constant is not None else {}


def _verdicts(
    s: Session, judged: Judged, result: Mapping[str, float], naive: Mapping[str, float]
) -> list[Verdict | None]:
    """What all this shows. `naive`: the constant answer's figures on the drawn training rows."""
    own, metric = s.data.result_split, s.evaluator.metric
    found: list[Verdict | None] = []
    if own is not None:
        rows = f"{s.data.rows_in(own):,} {rows_called(own)}"
        if own in judged.base:
            found.append(verdicts.against("Base", "the base", result, judged.base[own].metrics, metric, rows))
        if judged.constant is not None:
            words = f"a constant answer ({judged.constant_words})"
            found.append(verdicts.against("Constant", words, result, judged.constant.metrics, metric, rows))
    if judged.sets and judged.base:
        tuned = {name: scores.metrics for name, scores in judged.sets.items()}
        before = {split.removeprefix(SET): scores.metrics for split, scores in judged.base.items() if SET in split}
        found.append(verdicts.forgotten(tuned, before, metric))
    if judged.learned is not None:
        held = judged.validation.metrics if judged.validation else result
        name = "validation" if judged.validation else "test"
        rows_of_both = (f"{judged.learned.rows:,} training rows", f"the {s.data.rows_in(name):,} {name} rows")
        step = s.state.best.step if s.state.best and s.config.checkpoints.keep_best else s.state.step
        steps = (step, s.state.step)
        found.append(verdicts.fit(judged.learned.metrics, held, naive, metric, rows=rows_of_both, steps=steps))
    return found
