"""Masked language modelling: a model that sees both sides of a token learns the language of a domain from plain texts.

What is hidden is drawn by seed, epoch and row, so that each epoch asks for other words, a resumed run for the same
ones, and every evaluation for the same. A text longer than the model takes gives several examples, which lie side by
side: nothing of it is left out. The result is where a job of another task may start from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.exits import JobError, Reason
from finetune_api.masking import MaskedLm
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_trainer.batches.example import IGNORE, MaskedExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import MODEL_FIELD, Tokenizer
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Mistake, Mistakes, NothingToLearn, Row, Sampling, Task
from finetune_trainer.tasks.columns import missing, pick, text_problem
from finetune_trainer.tasks.masking import drawn, hidden, words_of

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["masked-lm"]
USUAL = {role.name: role.usual for role in INFO.roles}


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Role text. Raises JobError naming the field."""
    text = pick("text", wanted.text if wanted else None, USUAL["text"], found)
    if text is None:
        raise missing("text", "no column has a usual name for the text", found)
    return {"text": text}


def classes(row: Row, columns: Mapping[str, str]) -> tuple[()]:
    """Language models have no classes."""
    return ()


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None."""
    if problem := text_problem(row, columns["text"]):
        return problem
    if not row[columns["text"]].strip():
        return f"column {columns['text']!r} is empty: nothing to learn; give it a text, or leave the row out"
    return None


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> list[MaskedExample]:
    """One example for each part of the text. Raises NothingToLearn where no word can be hidden.

    The row has passed check_row.
    """
    settings: MaskedLm = facts.settings
    mask, generator, found = mask_id(tokenizer), draw.generator(), []
    for ids, numbers in tokenizer.parts(row[facts.columns["text"]], max_length):
        if words := words_of(numbers, whole=settings.whole_words):
            places = drawn(words, settings.mask_share, generator)
            given = hidden(ids, places, mask, tokenizer.ordinary_ids, generator)
            found.append(MaskedExample(given, None, len(ids), targets(ids, places)))
    if not found:
        raise NothingToLearn("the tokenizer knows no word of the text, so that none can be hidden")
    return found


def targets(ids: Sequence[int], places: Iterable[int]) -> list[int]:
    """What belongs at the places, and IGNORE at all others."""
    found = [IGNORE] * len(ids)
    for place in places:
        found[place] = ids[place]
    return found


def mask_id(tokenizer: Tokenizer) -> int:
    """The token that hides others. Raises JobError without one."""
    if tokenizer.mask_id is None:
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            "the model's tokenizer has no mask token",
            field=MODEL_FIELD,
            hint="Name mask_token in tokenizer_config.json, or choose a model that was trained with masks.",
        )
    return tokenizer.mask_id


def objective(facts: JobFacts) -> Objective:
    """Each hidden token from all the others."""
    from finetune_trainer.objectives.masked_token import masked_token

    return masked_token


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Losses and right guesses of hidden tokens."""
    from finetune_trainer.evaluate.masked_tally import MaskedTally

    return MaskedTally()


def samples(model: Any, rows: Iterable[Row], given: Sampling) -> list[dict[str, str]]:
    """What the model fills into the first few texts."""
    from finetune_trainer.tasks.filling import filled_samples

    return filled_samples(model, rows, given.facts, given.tokenizer, given.max_length)


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{text, fills} for a text that holds the mask token; {loss, perplexity, tokens} for any other."""
    from finetune_trainer.tasks.filling import fill, judge

    settings: MaskedLm = facts.settings
    texts = [row[facts.columns["text"]] for row in rows]
    mask = tokenizer.decode([mask_id(tokenizer)])
    found: dict[int, dict[str, Any]] = {}
    for asked, answer in ((True, fill), (False, judge)):
        chosen = [i for i, text in enumerate(texts) if (mask in text) is asked]
        answers = answer(model, [texts[i] for i in chosen], settings, tokenizer, max_length)
        found.update(zip(chosen, answers, strict=True))
    return [found[i] for i in range(len(texts))]


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Texts whose hidden words the model did not expect."""
    texts = [row[given.facts.columns["text"]] for row in rows]
    return [Mistake(text, "", "", {"loss a token": each.wrong}) for text, each in zip(texts, kept, strict=True)]


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """What belongs in a gap."""
    return [
        'inputs = tokenizer(f"some {tokenizer.mask_token} text", return_tensors="pt")',
        "gap = inputs.input_ids[0] == tokenizer.mask_token_id",
        "print(tokenizer.decode(model(**inputs).logits[0, gap].argmax(-1)))",
    ]


HEAD = HeadPolicy(
    serves=INFO.name,
    class_name=re.compile(r"\w+ForMaskedLM"),
    auto_class="AutoModelForMaskedLM",
    peft_task="",
    is_new=INFO.new_head,
    rebuilt=True,
)

TASK = Task(
    info=INFO,
    head=HEAD,
    columns=columns,
    classes=classes,
    check_row=check_row,
    encode=encode,
    varies=lambda facts: True,
    objective=objective,
    tally=tally,
    usage=usage,
    defaults=MaskedLm(),
    predict=predict,
    samples=samples,
    mistakes=Mistakes({"surprising": "The highest loss a token"}, mistakes),
)
