"""Questions on texts: the forms that answers come in, windows that hold every token of the context, and where an answer
stands in them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.answering import QuestionAnswering
from finetune_api.exits import JobError
from finetune_api.sources import Columns
from finetune_trainer.model.load import load_model
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn
from finetune_trainer.tasks.gold import BadAnswers, gold_answers
from finetune_trainer.tasks.question_answering import TASK
from support.models import HAM, SPAM

SQUAD = {"question": "question", "context": "context", "answers": "answers"}
FLAT = {"question": "question", "context": "context", "answer": "answer"}
CONTEXT = "The mill was built in 1850 by Ann Lee. Ann Lee lived in Ghent."


def facts(columns: dict[str, str] = SQUAD, **settings: Any) -> JobFacts:
    return JobFacts(columns, settings=QuestionAnswering(**settings))


def row(answers: Any, context: str = CONTEXT, question: str = "Who?") -> dict[str, Any]:
    return {"question": question, "context": context, "answers": answers}


LEE = [("Ann Lee", 30)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"text": ["Ann Lee"], "answer_start": [30]}, LEE),
        ({"text": ["Ann Lee", "Lee"], "answer_start": [30, 34]}, [*LEE, ("Lee", 34)]),
        ({"text": [], "answer_start": []}, []),
        ({"answer_start": [30.0], "text": [" Ann Lee "]}, LEE),
        ({"text": [" Ann Lee"], "answer_start": [29]}, LEE),
        ({"text": ["Ann Lee"]}, LEE),
        ({"text": [""], "answer_start": [0]}, []),
        ([{"text": "Ann Lee", "start": 39}], [("Ann Lee", 39)]),
        ([{"text": "Ann Lee", "answer_start": "39"}], [("Ann Lee", 39)]),
        ([{"text": "1850"}], [("1850", 22)]),
        ([], []),
        (None, []),
        ("", []),
        ('{"text": ["Ann Lee"], "answer_start": [30]}', LEE),
        ('[{"text": "Ann Lee", "start": 30}]', LEE),
        ("[]", []),
        ("null", []),
    ],
)
def test_answers_in_every_form(answers: Any, expected: list[tuple[str, int]]) -> None:
    assert TASK.check_row(row(answers), SQUAD) is None
    assert [(gold.text, gold.start) for gold in gold_answers(row(answers), SQUAD)] == expected


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (
            {"text": ["Ann Lee"], "answer_start": [32]},
            "has the start 32, where 'n Lee. A' stands; it stands at 30, 2 c",
        ),
        (
            {"text": ["Ann Lee"], "answer_start": [29]},
            "it stands at 30, 1 character on; starts count characters from 0",
        ),
        ({"text": ["Ann Lee"], "answer_start": [38]}, "it stands at 39, 1 character on"),
        ({"text": ["Ann Lee"], "answer_start": [900]}, "and the context has 62 characters; it stands at 39, 861"),
        ({"text": ["Ann Lee"], "answer_start": [-1]}, "which lies before the context; it stands at 30"),
        ({"text": ["Bob"], "answer_start": [3]}, "stands nowhere in the context"),
        ({"text": ["ann lee"], "answer_start": [30]}, "in other letters (upper and lower case) only"),
        ({"text": ["Ann Lee"], "answer_start": ["x"]}, "has the start 'x'; write a whole number"),
        ({"text": ["Ann Lee"], "answer_start": [True]}, "has the start True; write a whole number"),
        ({"text": ["Ann Lee"], "answer_start": [1.5]}, "has the start 1.5; write a whole number"),
        ({"text": ["Ann Lee"], "answer_start": []}, "has 1 texts and 0 starts"),
        ({"text": "Ann Lee", "answer_start": 30}, "without lists 'text' and 'answer_start'"),
        ({"texts": ["Ann Lee"]}, "without lists 'text' and 'answer_start'"),
        ({"text": [1850], "answer_start": [22]}, "has int for an answer, not text"),
        (["Ann Lee"], "lists str where {text, start} belongs"),
        ([{"answer": "Ann Lee"}], "lists dict where {text, start} belongs"),
        ("Ann Lee", "holds text that is not JSON; write {"),
        (7, "holds int, not answers; write {"),
        ("7", "holds int, not answers; write {"),
    ],
)
def test_bad_answers_are_named_with_what_stands_there(answers: Any, says: str) -> None:
    told = TASK.check_row(row(answers), SQUAD)
    assert told is not None
    assert says in told


def test_starts_that_count_bytes_are_recognised() -> None:
    context = "Café, Zürich: naïve façade by Ann"
    told = TASK.check_row(row({"text": ["Ann"], "answer_start": [len(context[:30].encode())]}, context), SQUAD)
    assert told is not None
    assert "it stands at 30, 4 characters before: the start counts bytes; count characters" in told
    composed = TASK.check_row(row({"text": ["Café"]}, "Cafe\u0301 Zürich"), SQUAD)
    assert composed is not None
    assert "another Unicode form only" in composed


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"question": " "}, "column 'question' is empty"),
        ({"context": "\n\t"}, "column 'context' is empty"),
        ({"context": None}, "column 'context' is missing or null"),
        ({"question": ["a"]}, "column 'question' holds list, not text"),
    ],
)
def test_an_empty_question_or_context_is_a_bad_row(given: dict[str, Any], says: str) -> None:
    told = TASK.check_row({**row([]), **given}, SQUAD)
    assert told is not None
    assert says in told
    assert TASK.check_input is not None
    assert TASK.check_input({**row([]), **given}, SQUAD) == told
    assert TASK.check_input({"question": "Who?", "context": "x"}, SQUAD) is None, "answers are not asked for"
    missing = TASK.check_row({"question": "Who?", "context": "x"}, SQUAD)
    assert missing is not None
    assert "column 'answers' is missing" in missing


def test_the_flat_form_and_rows_that_have_no_answer() -> None:
    plain = {"question": "Who?", "context": CONTEXT, "answer": "Ann Lee"}
    with_start = {**FLAT, "answerStart": "at"}
    assert [(g.start, g.places) for g in gold_answers(plain, FLAT)] == [(30, 2)], "the first of two places"
    assert [(g.start, g.places) for g in gold_answers({**plain, "at": "39"}, with_start)] == [(39, 1)]
    assert [(g.start, g.places) for g in gold_answers({**plain, "at": None}, with_start)] == [(30, 2)]
    for nothing in (None, "", "  "):
        assert gold_answers({**plain, "answer": nothing}, FLAT) == ()
    with pytest.raises(BadAnswers, match="stands nowhere"):
        gold_answers({**plain, "answer": "Bob"}, FLAT)
    flagged = {**SQUAD, "unanswerable": "none"}
    for value, count in ((True, 0), ("true", 0), (1, 0), (False, 1), ("False", 1), (0, 1), (None, 1), ("", 1)):
        found = gold_answers({**row({"text": ["Ann Lee"], "answer_start": [30]}), "none": value}, flagged)
        assert len(found) == count, value
    with pytest.raises(BadAnswers, match="write true where there is no answer"):
        gold_answers({**row([]), "none": "maybe"}, flagged)


def test_columns_are_found_by_their_usual_names() -> None:
    assert TASK.columns(["id", "context", "question", "answers"], None) == SQUAD
    assert TASK.columns(["passage", "query", "answer", "answer_start"], None) == {
        "question": "query",
        "context": "passage",
        "answer": "answer",
        "answerStart": "answer_start",
    }
    assert TASK.columns(["question", "context", "answers", "is_impossible"], None)["unanswerable"] == "is_impossible"
    wanted = Columns(question="q", context="c", answer="a")
    assert TASK.columns(["q", "c", "a", "answers"], wanted) == {"question": "q", "context": "c", "answer": "a"}
    for found, field in ((["question", "answers"], "context"), (["question", "context"], "answers")):
        with pytest.raises(JobError) as caught:
            TASK.columns(found, None)
        assert caught.value.field == f"spec.data.columns.{field}"
    with pytest.raises(JobError, match="jq -c") as caught:
        TASK.columns(["version", "data"], None)


@dataclass
class Kind:
    """A tokenizer, and which place stands for "no answer" in its pairs."""

    tokenizer: Tokenizer
    null: int | None


def variants(bert: Path, llama: Path, folder: Path) -> dict[str, Kind]:
    """BERT's, the same with the CLS token last (as XLNet has it, which pads on the left), and one without any."""
    plain = json.loads((bert / "tokenizer.json").read_text())
    cls = {"SpecialToken": {"id": "[CLS]", "type_id": 2}}
    for form in ("single", "pair"):
        template = plain["post_processor"][form]
        template[:] = [*template[1:], cls]
    for name in ("tokenizer_config.json", "config.json"):
        (folder / name).write_text((bert / name).read_text())
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {
        "bert": Kind(load_tokenizer(bert), 0),
        "last": Kind(load_tokenizer(folder), -1),
        "llama": Kind(load_tokenizer(llama), 0),
    }


def test_every_token_of_the_context_stands_in_a_window_and_each_window_has_the_whole_question(
    bert: Path, llama: Path, tmp_path: Path
) -> None:
    rng = random.Random(5)
    for name, kind in variants(bert, llama, tmp_path).items():
        tokenizer = kind.tokenizer
        for _ in range(40):
            words = rng.choices(HAM, k=rng.randint(3, 60))
            start = rng.randrange(len(words))
            answer = " ".join(words[start : start + rng.randint(1, 3)])
            context = "é " + " ".join(words)
            at = len(" ".join(["é", *words[:start], ""]))
            question = " ".join(rng.choices(SPAM, k=rng.randint(1, 3))) + "?"
            given = row({"text": [answer], "answer_start": [at]}, context, question)
            most = len(tokenizer.pair(question, "x").ids) + rng.randint(20, 60)
            stride = rng.choice((None, 0, 3, 12))
            windows = TASK.encode(given, facts(stride=stride), tokenizer, most, Draw(row=3))
            whole = tokenizer.pair(question, context)
            covered: set[tuple[int, int]] = set()
            for window in windows:
                assert window.length <= most, name
                assert window.asked is windows[0].asked
                assert window.full_length == len(whole.ids)
                covered.update(window.offsets)
                own = window.input_ids[window.first : window.first + len(window.offsets)]
                assert all(
                    (offset, token) in zip(whole.offsets, whole.ids[whole.first :], strict=False)
                    for offset, token in zip(window.offsets, own, strict=True)
                ), "tokens keep their offsets"
                rest = window.input_ids[: window.first] + window.input_ids[window.first + len(window.offsets) :]
                assert rest == whole.ids[: whole.first] + whole.ids[whole.first + len(whole.offsets) :]
                if name != "llama":
                    assert window.null == (kind.null or 0) % window.length
                    assert tokenizer.decode([window.input_ids[window.null]]) == "[CLS]"
                if window.span != (window.null, window.null):
                    low, high = window.text(*window.span)
                    assert (context[low:high], low) == (answer, at), name
                else:
                    inside = [o for o in window.offsets if o[0] < at + len(answer) and o[1] > at]
                    whole_answer = [o for o in whole.offsets if o[0] < at + len(answer) and o[1] > at]
                    assert inside != whole_answer, "held whole, and taken for none"
            assert covered == set(whole.offsets)
            if windows[0].asked.found:
                assert sum(window.losses for window in windows) == pytest.approx(1)


def test_labels_masks_and_type_ids_are_the_windows(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    context = "meeting report lunch project review notes budget agenda"
    given = row([{"text": "lunch project"}], context, "free cash")
    (window,) = TASK.encode(given, facts(), tokenizer, 64, Draw())
    assert tokenizer.decode(window.input_ids) == f"[CLS] free cash [SEP] {context} [SEP]"
    assert window.type_ids == [0] * 4 + [1] * 9
    assert window.labels(16) == [6, 7, 0, 4, 12, 1]
    assert (window.first, window.null, window.losses) == (4, 0, 1.0)
    (none,) = TASK.encode({**given, "answers": []}, facts(), tokenizer, 64, Draw())
    assert none.labels(16) == [0, 0, 0, 4, 12, 1]


def test_a_window_without_room_is_refused_with_the_figures(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    given = row([], " ".join(HAM * 3), " ".join(SPAM))
    beside = len(SPAM) + 3
    with pytest.raises(
        NothingToLearn, match=rf"take {beside} of the 16 tokens of a window, which leaves 0 for the con"
    ):
        TASK.encode(given, facts(), tokenizer, 16, Draw())
    with pytest.raises(NothingToLearn, match=r"leaves 13 for the context, and windows are to share 13; raise .* lower"):
        TASK.encode(given, facts(stride=13), tokenizer, beside + 13, Draw())
    assert len(TASK.encode(given, facts(stride=12), tokenizer, beside + 13, Draw())) == 36


def test_an_answer_that_no_window_holds_is_not_learned_as_none_and_is_still_judged(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    context = " ".join(HAM)
    given = row([{"text": " ".join(HAM[2:12])}], context, "free cash")
    with pytest.raises(NothingToLearn, match="no window of maxLength 11 holds the whole answer"):
        TASK.encode(given, facts(stride=2), tokenizer, 11, Draw(epoch=0))
    judged = TASK.encode(given, facts(stride=2), tokenizer, 11, Draw())
    assert sum(window.losses for window in judged) == 0
    assert judged[0].asked.answers == (" ".join(HAM[2:12]),)
    assert {window.labels(16)[-1] for window in judged} == {0}


def test_findings_for_places_that_were_guessed_and_answers_that_are_too_long(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    rows = {
        0: {"question": "x", "context": "lunch and lunch", "answer": "lunch"},
        1: {"question": "x", "context": "lunch and notes", "answer": "notes"},
        2: {"question": "x", "context": "lunch and notes", "answer": "lunch and notes"},
    }
    hidden = {
        n: sum(w.hidden for w in TASK.encode(r, facts(FLAT, max_answer_tokens=2), tokenizer, 64, Draw()))
        for n, r in rows.items()
    }
    assert hidden == {0: 0, 1: 0, 2: 1}
    found = TASK.omissions(rows, {n: v for n, v in hidden.items() if v}, FLAT, tokenizer)
    assert [(omission.kind, [*omission.rows]) for omission in found] == [("GuessedStart", [0]), ("LongAnswers", [2])]


def test_predict_finds_what_the_windows_hold_and_names_what_it_cannot_answer(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    model = load_model(bert, TASK.head, labels=None, seed=1, pad_id=0).eval()
    rows = [{"question": "free cash", "context": " ".join(HAM * n)} for n in (1, 4, 2)]
    rows.append({"question": " ".join(SPAM * 3), "context": "lunch"})
    assert TASK.predict is not None
    with torch.inference_mode():
        alone = [TASK.predict(model, [r], facts(), {"noAnswerThreshold": None}, tokenizer, 40)[0] for r in rows]
        together = TASK.predict(model, rows, facts(), {"noAnswerThreshold": None}, tokenizer, 40)
        none = TASK.predict(model, rows, facts(), {"noAnswerThreshold": -100.0}, tokenizer, 40)
    for found, single, given in zip(together[:3], alone, rows, strict=False):
        assert found["answer"] == given["context"][found["start"] : found["end"]] == single["answer"] != ""
        assert found["score"] == pytest.approx(single["score"], abs=1e-4)
        assert found["noAnswerScore"] == pytest.approx(single["noAnswerScore"], abs=1e-4)
    assert [answer["answer"] for answer in none] == [""] * 4
    assert none[0]["start"] is None
    assert none[0]["score"] == together[0]["score"]
    assert "which leaves 0 for the context" in together[3]["problem"]
    json.dumps(together)
