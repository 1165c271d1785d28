"""Questions on texts: a question, the text that it is asked of, and the answers as they stand in it."""

from __future__ import annotations

from typing import Any

from finetune_api.answering import FLATTEN
from finetune_api.tasks import usual_names
from finetune_cli.init.guesses.base import Guess, Rows
from finetune_cli.terminal import Stop

CONTEXTS = ("context", "passage", "paragraph")


def answers(rows: Rows, names: list[str]) -> Guess | None:
    """SQuAD's columns, or a question, a context and an answer that stands in it.

    Raises Stop for SQuAD's nested file.
    """
    if any(_is_nested(value) for row in rows[:3] for value in row.values()):
        raise Stop("this is SQuAD's nested file, and rows are wanted", hint=FLATTEN)
    lower = {name.lower(): name for name in reversed(names)}

    def named(usual: tuple[str, ...]) -> str | None:
        return next((lower[name.lower()] for name in usual if name.lower() in lower), None)

    question, context = named(usual_names("question")), named(CONTEXTS)
    if question is None or context is None or not all(_are_texts(row, question, context) for row in rows):
        return None
    reasons = [f"{question} asks of {context}"]
    columns = {"question": question, "context": context}
    many, one = named(usual_names("answers")), named(usual_names("answer"))
    if many is not None and any(row.get(many) for row in rows):
        columns["answers"] = many
        reasons.append(f"{many} holds what answers it")
    elif one is not None and _stand_there(rows, context, one):
        columns["answer"] = one
        reasons.append(f"{one} stands in {context}, and so answers {question}")
        if start := named(usual_names("answerStart")):
            columns["answerStart"] = start
    else:
        return None
    if flag := named(usual_names("unanswerable")):
        columns["unanswerable"] = flag
    return Guess(columns, tuple(reasons))


def _are_texts(row: dict[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), str) and row[name].strip() for name in names)


def _stand_there(rows: Rows, context: str, answer: str) -> bool:
    """Whether each answer that is given stands in its context: else a model is to write it."""
    given = [(row[context], row[answer]) for row in rows if row.get(answer)]
    return bool(given) and all(isinstance(text, str) and text.strip() in there for there, text in given)


def _is_nested(value: Any) -> bool:
    """The paragraphs of SQuAD's file, or the articles that hold them."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return "qas" in value[0] or "paragraphs" in value[0]
