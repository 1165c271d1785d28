"""Questions on a text: the answer is a span of it, or there is none.

A row that is longer than maxLength is taken in windows of the context, each with the whole question before it; every
token of the context stands in one. In a window that does not hold the answer whole the right answer is the place for
"no answer": the CLS token's. The question comes first in every family, since a decoder must have read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from finetune_api.answering import FLATTEN, QuestionAnswering
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_trainer.batches.span_example import Asked, SpanExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Pair, Tokenizer
from finetune_trainer.tasks.base import (
    Decision,
    Draw,
    JobFacts,
    Mistake,
    Mistakes,
    NothingToLearn,
    Omission,
    Row,
    Sampling,
    Task,
)
from finetune_trainer.tasks.columns import missing, pick, text_problem
from finetune_trainer.tasks.constants import Constant
from finetune_trainer.tasks.gold import BadAnswers, Gold, gold_answers
from finetune_trainer.tasks.windows import windows

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["question-answering"]
USUAL = {role.name: role.usual for role in INFO.roles}
STRIDE = 128
"""As Devlin et al. 2018 have it for windows of 384."""
SAMPLES, AROUND = 8, 200
"""Rows that the report shows, and the characters of their contexts."""
NO_ANSWER = "(no answer)"
UNDECIDED: Decision = {"noAnswerThreshold": 0.0}
"""Where no validation row chose another."""


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles question, context, and answers, or answer and, if there is one, answerStart; unanswerable if there is one.

    Raises JobError naming the field.
    """
    w = wanted or Columns()
    question, context = (pick(role, getattr(w, role), USUAL[role], [*found]) for role in ("question", "context"))
    for role, column in (("question", question), ("context", context)):
        if column is None:
            error = missing(role, f"no column has a usual name for the {role}", found)
            if {"data", "paragraphs"} & {*found}:
                error.hint = f"This is SQuAD's nested file. {FLATTEN}"
            raise error
    assert question is not None
    assert context is not None
    roles = {"question": question, "context": context} | _answer_columns(found, w)
    unanswerable = pick("unanswerable", w.unanswerable, USUAL["unanswerable"], found)
    return roles | ({"unanswerable": unanswerable} if unanswerable else {})


def _answer_columns(found: Sequence[str], w: Columns) -> dict[str, str]:
    if w.answer is None and (answers := pick("answers", w.answers, USUAL["answers"], found)):
        return {"answers": answers}
    answer = pick("answer", w.answer, USUAL["answer"], found)
    if answer is None:
        raise missing("answers", "no column has a usual name for the answers", found)
    start = pick("answerStart", w.answer_start, USUAL["answerStart"], found)
    return {"answer": answer} | ({"answerStart": start} if start else {})


def classes(row: Row, columns: Mapping[str, str]) -> tuple[()]:
    """There are none."""
    return ()


def check_input(row: Row, columns: Mapping[str, str]) -> str | None:
    """What keeps the row from being answered, or None."""
    for role in ("question", "context"):
        if problem := text_problem(row, columns[role]):
            return problem
        if not row[columns[role]].strip():
            return f"column {columns[role]!r} is empty; give it a text, or leave the row out"
    return None


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None."""
    if problem := check_input(row, columns):
        return problem
    named = columns.get("answers") or columns["answer"]
    if named not in row:
        return f"column {named!r} is missing; give the row its answers, or null where there is none"
    try:
        gold_answers(row, columns)
    except BadAnswers as error:
        return str(error)
    return None


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> Sequence[SpanExample]:
    """The row's windows. The first answer is learned.

    The row has passed check_row. Raises NothingToLearn where the question leaves no room for the context, and, of a row
    that is learned from, where no window holds the answer whole.
    """
    answers = gold_answers(row, facts.columns)
    found = asked(row, facts, tokenizer, max_length, draw.row, answers)
    if draw.epoch is not None and not found[0].asked.found:
        raise NothingToLearn(
            f"no window of maxLength {max_length} holds the whole answer {answers[0].text[:40]!r}; raise"
            " spec.questionAnswering.stride or spec.training.maxLength, or shorten the answer"
        )
    return found


def asked(
    row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, key: int, answers: Sequence[Gold] = ()
) -> list[SpanExample]:
    """The row's windows, with what is to be found in them where that is known."""
    context = row[facts.columns["context"]]
    pair = tokenizer.pair(row[facts.columns["question"]], context)
    cuts = _cuts(pair, facts.settings, max_length)
    span = _tokens(pair, answers[0]) if answers else None
    whole = span is None or any(low <= span[0] and span[1] < high for low, high in cuts)
    too_long = span is not None and span[1] - span[0] >= facts.settings.max_answer_tokens
    shared = Asked(key, context, tuple(gold.text for gold in answers), len(cuts), whole)
    return [_window(pair, low, high, span, shared, hidden=int(too_long)) for low, high in cuts]


def _cuts(pair: Pair, settings: QuestionAnswering, max_length: int) -> list[tuple[int, int]]:
    """[low, high) of the context's tokens in each window. Raises NothingToLearn where there is no room for them."""
    length, beside = len(pair.offsets), len(pair.ids) - len(pair.offsets)
    if not length:
        raise NothingToLearn("the tokenizer makes no token of the context; write it in characters that the model knows")
    if len(pair.ids) <= max_length:
        return [(0, length)]
    room = max_length - beside
    overlap = min(STRIDE, room // 2) if settings.stride is None else settings.stride
    if room <= 0 or overlap >= room:
        shared = f", and windows are to share {overlap}" if room > 0 else ""
        raise NothingToLearn(
            f"the question and special tokens take {beside} of the {max_length} tokens of a window, which leaves"
            f" {max(0, room)} for the context{shared}; raise spec.training.maxLength"
            + (", lower spec.questionAnswering.stride" if room > 0 else "")
            + ", or shorten the question"
        )
    return [(window.start, window.end) for window in windows(length, room, overlap)]


def _tokens(pair: Pair, gold: Gold) -> tuple[int, int]:
    """The first and the last of the context's tokens that the answer touches.

    Raises NothingToLearn where there is none.
    """
    low, high = gold.start, gold.start + len(gold.text)
    touched = [i for i, (begin, end) in enumerate(pair.offsets) if begin < high and end > low]
    if not touched:
        raise NothingToLearn(f"the tokenizer makes no token of the answer {gold.text[:40]!r}; leave the row out")
    return touched[0], touched[-1]


def _window(pair: Pair, low: int, high: int, span: tuple[int, int] | None, shared: Asked, hidden: int) -> SpanExample:
    """The window that holds the context's tokens [low, high)."""
    first, after = pair.first, pair.first + len(pair.offsets)

    def cut(values: list[int]) -> list[int]:
        return values[:first] + values[first + low : first + high] + values[after:]

    null = pair.null if pair.null < first else pair.null - len(pair.offsets) + high - low
    holds = span is not None and low <= span[0] and span[1] < high
    place = (span[0] - low + first, span[1] - low + first) if span is not None and holds else (null, null)
    types = None if pair.type_ids is None else cut(pair.type_ids)
    offsets = pair.offsets[low:high]
    return SpanExample(cut(pair.ids), types, len(pair.ids), shared, offsets, first, null, place, hidden=hidden)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """Two outputs a token, for where an answer begins and where it ends, whatever the base told apart."""
    return {"num_labels": 2}


def refusal(config: Mapping[str, Any], source: str) -> str | None:
    """Models of images, tables and pages answer questions too, and by other means."""
    if "start_logits" in source or "GenericForQuestionAnswering" in source:
        needed = next((name for name in ("bbox", "visual_feats", "xpath_tags_seq") if name in source), None)
        return needed and f"model type {config['model_type']!r} needs more than text ({needed})"
    return None


def objective(facts: JobFacts) -> Objective:
    """Cross-entropy of the answer's start and of its end."""
    from finetune_trainer.objectives.answer_span import answer_span

    return answer_span


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Exact match and F1; the rows choose the threshold where none was chosen before."""
    from finetune_trainer.evaluate.answer_tally import CHOOSE, AnswerTally

    return AnswerTally(facts.settings.max_answer_tokens, decision.get("noAnswerThreshold", CHOOSE))


def constant(facts: JobFacts) -> Constant:
    """No answer to any question: no place is likelier than any other, and that is below the threshold."""
    return Constant("no answer to any question", [0.0], tokens=True, decision={"noAnswerThreshold": -1.0})


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{answer, start, end, score, noAnswerScore}: characters of the context, end not included; sums of two logits.

    Where there is no answer it is "", and start and end are null. A row that leaves no room for its context has a
    `problem` instead of scores.
    """
    from finetune_trainer.tasks.spans import find

    encoded: list[SpanExample] = []
    problems: dict[int, str] = {}
    for n, row in enumerate(rows):
        try:
            encoded += asked(row, facts, tokenizer, max_length, n)
        except NothingToLearn as error:
            problems[n] = str(error)
    found = find(model, encoded, facts.settings.max_answer_tokens, tokenizer.pad_id, max_length)
    nothing: dict[str, Any] = {"answer": "", "start": None, "end": None}
    threshold = (decision or UNDECIDED)["noAnswerThreshold"]
    answers = []
    for n, row in enumerate(rows):
        if n in problems:
            answers.append({**nothing, "score": None, "noAnswerScore": None, "problem": problems[n]})
            continue
        best = found[n]
        scores = {"score": round(best.score, 6), "noAnswerScore": round(best.null, 6)}
        text = row[facts.columns["context"]][best.start : best.end]
        none = not text or (threshold is not None and best.null - best.score > threshold)
        answers.append({**(nothing if none else {"answer": text, "start": best.start, "end": best.end}), **scores})
    return answers


def samples(model: Any, rows: Iterable[Row], given: Sampling) -> list[dict[str, str]]:
    """What the model answers to the first few questions, beside what is right."""
    chosen = list(islice(rows, SAMPLES))
    was_training = model.training
    model.eval()
    try:
        found = predict(model, chosen, given.facts, given.decision, given.tokenizer, given.max_length)
    finally:
        model.train(was_training)
    return [_sample(row, answer, given.facts.columns) for row, answer in zip(chosen, found, strict=True)]


def _sample(row: Row, given: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    golds = gold_answers(row, columns)
    return {
        "prompt": _asked_of(row, columns, golds[0].start if golds else 0),
        "text": given["answer"] or NO_ANSWER,
        "reference": _right(golds),
    }


def _right(golds: Sequence[Gold]) -> str:
    return " | ".join(dict.fromkeys(gold.text for gold in golds)) or NO_ANSWER


def _asked_of(row: Row, columns: Mapping[str, str], middle: int) -> str:
    """The question, and the context around a place of it."""
    context = row[columns["context"]]
    low = max(0, min(middle - AROUND // 2, len(context) - AROUND))
    shown = ("…" if low else "") + context[low : low + AROUND] + ("…" if low + AROUND < len(context) else "")
    return f"{row[columns['question']]}\n\n{shown}"


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Questions that were answered wrong."""
    columns, found = given.facts.columns, []
    for row, each in zip(rows, kept, strict=True):
        start, end, score = each.values
        golds = gold_answers(row, columns)
        said = row[columns["context"]][int(start) : int(end)] if start >= 0 else ""
        text = _asked_of(row, columns, golds[0].start if golds else max(0, int(start)))
        found.append(Mistake(text, _right(golds), said or NO_ANSWER, {"F1": 1 - each.wrong, "score": score}))
    return found


def omissions(
    rows: Mapping[int, Row], hidden: Mapping[int, int], columns: Mapping[str, str], tokenizer: Tokenizer
) -> list[Omission]:
    """Answers whose place was guessed, and those that are too long to be given."""
    guessed = [n for n, row in rows.items() if any(gold.places > 1 for gold in gold_answers(row, columns))]
    found = [
        Omission(
            "GuessedStart",
            guessed,
            "In {share:.1%} of the {split} rows looked at the answer's text stands in the context more than once and"
            " nothing says where the answer is: the first place is taken. Give its start (answerStart, or start beside"
            " text).",
        ),
        Omission(
            "LongAnswers",
            sorted(n for n in hidden if n in rows),
            "In {share:.1%} of the {split} rows looked at the answer has more tokens than the model gives, so it is"
            " never answered whole. Raise spec.questionAnswering.maxAnswerTokens.",
        ),
    ]
    return [omission for omission in found if omission.rows]


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The best span over all windows of a text, or no answer."""
    return USAGE.splitlines()


USAGE = """\
import json, torch

with open(f"{folder}/task.json") as file:  # how rows become windows, and when there is no answer
    task = json.load(file)
question, context = "some question", "a text that may hold the answer"
room = task["maxLength"] - len(tokenizer(question, "").input_ids)
given = task["settings"].get("stride")
windows = tokenizer(
    question, context, truncation="only_second", max_length=task["maxLength"], return_overflowing_tokens=True,
    stride=min(128, room // 2) if given is None else given, return_offsets_mapping=True,
)
names = ["input_ids", *(["token_type_ids"] if (getattr(model.config, "type_vocab_size", 0) or 0) > 1 else [])]
best, null, answer = float("-inf"), float("inf"), ""
for n, offsets in enumerate(windows["offset_mapping"]):
    with torch.inference_mode():
        found = model(**{name: torch.tensor([windows[name][n]]) for name in names})
    start, end = found.start_logits[0].tolist(), found.end_logits[0].tolist()
    ids, sides = windows["input_ids"][n], windows.sequence_ids(n)
    place = next((ids.index(i) for i in (tokenizer.cls_token_id, tokenizer.bos_token_id) if i in ids), 0)
    null = min(null, start[place] + end[place])
    for i in (i for i, side in enumerate(sides) if side == 1):
        for j in range(i, min(i + task["settings"]["maxAnswerTokens"], len(ids))):
            if sides[j] == 1 and start[i] + end[j] > best:
                best, answer = start[i] + end[j], context[offsets[i][0] : offsets[j][1]].strip()
threshold = task["decision"].get("noAnswerThreshold", 0.0)  # null: there always is an answer
print("(no answer)" if threshold is not None and null - best > threshold else answer)"""

HEAD = HeadPolicy(
    serves=INFO.name,
    class_name=re.compile(r"(?!(?:XLNet|XLM|Flaubert)ForQuestionAnswering$)\w+ForQuestionAnswering(?:Simple)?"),
    auto_class="AutoModelForQuestionAnswering",
    peft_task="QUESTION_ANS",
    is_new=INFO.new_head,
    config=config_of_head,
    refusal=refusal,
)

TASK = Task(
    info=INFO,
    head=HEAD,
    columns=columns,
    classes=classes,
    check_row=check_row,
    check_input=check_input,
    encode=encode,
    objective=objective,
    tally=tally,
    usage=usage,
    constant=constant,
    defaults=QuestionAnswering(),
    undecided=UNDECIDED,
    predict=predict,
    samples=samples,
    mistakes=Mistakes({"wrong": "The lowest F1, of equals the highest score"}, mistakes),
    omissions=omissions,
)
