"""Token classification: entities in a text, or a tag for each of its words.

Rows are words with tags, or a text with spans (`entities/rows.py`). Entities are learned in one scheme, BIO2, whatever
the rows have (`entities/tags.py`); a long row is taken in windows, so that nothing of it is cut (`entities/encode.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.exits import JobError, Reason
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_trainer.batches.tagged import TaggedExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import (
    Decision,
    Draw,
    JobFacts,
    Mistake,
    Mistakes,
    Naming,
    Omission,
    Row,
    Sampling,
    Task,
)
from finetune_trainer.tasks.columns import missing, pick
from finetune_trainer.tasks.constants import Constant, always
from finetune_trainer.tasks.entities import encode as windows
from finetune_trainer.tasks.entities.rows import input_problem, off_edges, passage, row_problem, tags_in, types_in
from finetune_trainer.tasks.entities.tags import OUTSIDE, is_plain, outputs_for, parts, spans_of, types_of

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["token-classification"]
USUAL = {role.name: role.usual for role in INFO.roles}


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles tokens and tags, or text and spans. Raises JobError naming the field."""
    w = wanted or Columns()
    tokens = pick("tokens", w.tokens, USUAL["tokens"] if w.text is None else (), found)
    if tokens is not None:
        tags = pick("tags", w.tags, [name for name in USUAL["tags"] if name != tokens], found)
        if tags is None:
            raise missing("tags", "no column has a usual name for the tags of the words", found)
        return {"tokens": tokens, "tags": tags}
    text = pick("text", w.text, USUAL["text"], found)
    if text is None:
        raise missing("tokens", "no column has a usual name for words, or for a text", found)
    spans = pick("spans", w.spans, [name for name in USUAL["spans"] if name != text], found)
    if spans is None:
        raise missing("spans", "no column has a usual name for the spans of the text", found)
    return {"text": text, "spans": spans}


def classes(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Of spans, their types; of tags of entities, the B tag of each type, and O; plain tags as they are."""
    if "spans" in columns:
        return types_in(row, columns)
    tags = tags_in(row, columns)
    if is_plain(tags):
        return tuple(dict.fromkeys(tags))
    types = dict.fromkeys(span.kind for span in spans_of(tags))
    return (*([OUTSIDE] if OUTSIDE in tags else []), *(f"B-{kind}" for kind in types))


def allowed(names: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Names may be tags, in any scheme, or types: of tags without a prefix both are possible until rows were seen."""
    types = _types(names)
    if "spans" in columns:
        return types
    return list(dict.fromkeys([*([] if _are_tags(names) else names), OUTSIDE, *(f"B-{kind}" for kind in types)]))


def outputs(names: Sequence[str], seen: Sequence[str], columns: Mapping[str, str]) -> tuple[str, ...]:
    """O, then B and I of each type; or the plain tags. Tags of BIO2 that are named whole stay in their order.

    Raises JobError where there is nothing to learn, or some rows have plain tags and others those of entities.
    """
    role = "spans" if "spans" in columns else "tags"
    plain = [name for name in seen if role == "tags" and name != OUTSIDE and parts(name) is None]
    tagged = [name for name in seen if name != OUTSIDE and name not in plain]
    if plain and tagged:
        raise JobError(
            Reason.INVALID_DATA,
            f"some rows of column {columns[role]!r} have tags with a prefix ({tagged[0]!r}), and others without"
            f" ({plain[0]!r})",
            field=f"spec.data.columns.{role}",
            hint="Write the tags of all rows in one way: O, B-TYPE and I-TYPE for entities, or plain tags.",
        )
    if not tagged and len(seen) < 2:
        what = f"all words have the tag {plain[0]!r}" if plain else "no training row has an entity"
        raise JobError(
            Reason.INVALID_DATA,
            f"{what} (column {columns[role]!r}): there is nothing to learn",
            field=f"spec.data.columns.{role}",
            hint=f"Check that spec.data.columns.{role} is the right column.",
        )
    if plain or types_of(names):
        return tuple(names)
    return outputs_for(_types(names))


def row_classes(outputs: Sequence[str], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Of a head's outputs, what rows may have."""
    types = types_of(outputs)
    if types is None:
        return tuple(outputs)
    return types if "spans" in columns else (OUTSIDE, *(f"B-{kind}" for kind in types))


def _are_tags(names: Sequence[str]) -> bool:
    """Whether these are tags of entities, not types or plain tags."""
    return any(parts(name) for name in names) and all(parts(name) or name == OUTSIDE for name in names)


def _types(names: Sequence[str]) -> list[str]:
    """The types that are named, by themselves or in tags."""
    if not _are_tags(names):
        return [name for name in dict.fromkeys(names) if name != OUTSIDE]
    return list(dict.fromkeys(found[1] for name in names if (found := parts(name))))


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> list[TaggedExample]:
    """The row's windows. Raises NothingToLearn for a row without a word. The row has passed check_row."""
    return windows.encode(passage(row, facts.columns), facts.labels, tokenizer, max_length)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """The tags, in the order of the model's outputs."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }


def objective(facts: JobFacts) -> Objective:
    """Cross-entropy at the first token of each word."""
    from finetune_trainer.objectives.each_token import each_token

    return each_token(smoothing=facts.training.label_smoothing)


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Entities found whole; or the confusion of plain tags."""
    types = types_of(facts.labels)
    if types is None:
        from finetune_trainer.evaluate.tag_tally import TagTally

        return TagTally(tuple(facts.labels))
    from finetune_trainer.evaluate.entity_tally import EntityTally

    numbers = {kind: n for n, kind in enumerate(types)}

    def found(answers: Sequence[int]) -> set[tuple[int, int, int]]:
        spans = spans_of([facts.labels[answer] for answer in answers])
        return {(span.first, span.last, numbers[span.kind]) for span in spans}

    return EntityTally(types, found)


def constant(facts: JobFacts) -> Constant | None:
    """No entity; of plain tags the one that stands in most training rows. Its loss says nothing."""
    if types_of(facts.labels) is not None and OUTSIDE in facts.labels:
        place, words = list(facts.labels).index(OUTSIDE), "no entity"
    elif facts.label_counts:
        counts = list(facts.label_counts)
        place = counts.index(max(counts))
        words = always(facts.labels[place])
    else:
        return None
    outputs = [float(n == place) for n in range(len(facts.labels))]
    return Constant(words, outputs, tokens=True, leaves_out=("loss",))


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """Of a text {entities: [{start, end, label, text, score}]}; of words {tags, scores}, one each."""
    from finetune_trainer.tasks.entities.answers import answers

    return answers(model, rows, facts, tokenizer, max_length)


def samples(model: Any, rows: Iterable[Row], given: Sampling) -> list[dict[str, Any]]:
    """The first few rows with entities, as the data marks them and as the model does."""
    from finetune_trainer.tasks.entities.answers import marked_rows

    return marked_rows(model, rows, given.facts, given.tokenizer, given.max_length)


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Rows with what the data and what the model marks; named is what differs."""
    from finetune_trainer.tasks.entities.answers import misread

    found = misread(model, rows, given.facts, given.tokenizer, given.max_length)
    return [
        Mistake(text, missed, wrong, {"wrong or missed": each.wrong}, true, said)
        for (text, missed, wrong, true, said), each in zip(found, kept, strict=True)
    ]


def omissions(
    rows: Mapping[int, Row], hidden: Mapping[int, int], columns: Mapping[str, str], tokenizer: Tokenizer
) -> list[Omission]:
    """Entities of which the model sees no token, and spans that are no whole words."""
    found = []
    if hidden:
        message = (
            "In about {share:.1%} of the {split} rows there are words with a tag that the tokenizer turns into nothing:"
            " they are not learned, and count as missed."
        )
        found.append(Omission("UnseenWords", sorted(hidden), message))
    if "spans" in columns and (cut := {n: off for n, row in rows.items() if (off := off_edges(row, columns))}):
        part, whole = (text[:40].replace("{", "{{").replace("}", "}}") for text in cut[min(cut)])
        message = (
            "In about {share:.1%} of the {split} rows a span begins or ends inside a word; the whole word is learned:"
            f" {whole!r} for {part!r}."
        )
        found.append(Omission("WidenedSpans", sorted(cut), message))
    return found


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The entities of a text, or the tags of its words."""
    imports = "from transformers import pipeline"
    made = 'pipeline("token-classification", model=model, tokenizer=tokenizer'
    if types_of(facts.labels) is None:
        shown = "    print(word['word'], word['entity'], round(float(word['score']), 3))"
        return [imports, "", f"tagger = {made})", 'for word in tagger("some text"):', shown]
    shown = (
        "    print(found['entity_group'], found['start'], found['end'], found['word'], round(float(found['score']), 3))"
    )
    return [imports, "", f'tagger = {made}, aggregation_strategy="first")', 'for found in tagger("some text"):', shown]


HEAD = HeadPolicy(
    serves=INFO.name,
    class_name=re.compile(r"\w+ForTokenClassification"),
    auto_class="AutoModelForTokenClassification",
    peft_task="TOKEN_CLS",
    is_new=INFO.new_head,
    config=config_of_head,
)

TASK = Task(
    info=INFO,
    head=HEAD,
    columns=columns,
    classes=classes,
    check_row=row_problem,
    check_input=input_problem,
    encode=encode,
    objective=objective,
    tally=tally,
    usage=usage,
    constant=constant,
    naming=Naming(allowed, outputs, row_classes),
    predict=predict,
    samples=samples,
    mistakes=Mistakes({"wrong": "The most wrong and missed"}, mistakes),
    omissions=omissions,
)
