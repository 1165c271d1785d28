"""Where a job starts from: the model, the data, and what of the data to use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.base import Model, Rule, cel_text
from finetune_api.formats import FormatChoice
from finetune_api.tasks import TASKS
from finetune_api.uris import REVISION_OF_HUB, Column, DataUri, ModelUri, Revision, SetName, Split, no_file


class ModelSource(Model):
    """The pre-trained model to start from."""

    uri: ModelUri = Field(description="Where the model lies: s3://bucket/prefix, hf://organisation/name, or file:///folder with `finetune run`. Holds config.json, tokenizer files and *.safetensors.")
    revision: Revision | None = Field(None, description="Branch, tag or commit of an hf:// model. Resolved to a commit once, and recorded.")

    RULES = (no_file(), REVISION_OF_HUB)


_SPLIT_OF_HUB = Rule(
    "!has(self.split) || self.uri.startsWith('hf://')",
    "only hf:// data sets have named splits; use a URI that matches the files wanted",
    lambda s: s.split is None or s.uri.startswith("hf://"),
    field="split",
)


class TrainSource(Model):
    """The training data."""

    uri: DataUri = Field(description="Objects to read: s3://bucket/prefix/*.jsonl.zst (globs * ? and ** allowed), images in a folder for each class (s3://bucket/images/**), hf://organisation/data-set, or file:///path with `finetune run`. Names that begin with _ or . (folders too) are no data unless they are spelt out.")
    revision: Revision | None = Field(None, description="Branch, tag or commit of an hf:// data set. Resolved to a commit once, and recorded.")
    split: Split | None = Field(None, description="Split of an hf:// data set; \"train\" when absent.")
    per_class: int | None = Field(None, ge=1, le=1_000_000, description="Few-shot: learn from so many different rows of each class, drawn by seed once held-out rows are taken away; all others are left unused. A class that has fewer gives all.")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Which rows perClass draws; 0 when absent. Whatever it is, the same rows are held out.")

    RULES = (
        Rule(
            "!has(self.seed) || has(self.perClass)",
            "only draws rows for perClass; set it too, or remove seed",
            lambda s: s.seed is None or s.per_class is not None,
            field="seed",
        ),
        no_file(),
        REVISION_OF_HUB,
        _SPLIT_OF_HUB,
    )


class HeldOutSource(Model):
    """Data kept apart from training: other objects, or a fraction of the training rows."""

    uri: DataUri | None = Field(None, description="Objects to read, as for train.")
    revision: Revision | None = Field(None, description="Branch, tag or commit of an hf:// data set.")
    split: Split | None = Field(None, description="Split of an hf:// data set; \"validation\" or \"test\" when absent.")
    fraction: float | None = Field(None, gt=0, le=0.5, description="Share of the training rows to hold out, the same of each class, or of low and high numbers where these are learned. Drawn by the rows' content, whatever their order and the seed: equal rows are on one side, and each class keeps at least one row to learn from.")

    RULES = (
        no_file(optional=True),
        REVISION_OF_HUB,
        Rule(
            "has(self.uri) != has(self.fraction)",
            "set exactly one of uri and fraction",
            lambda s: (s.uri is None) != (s.fraction is None),
        ),
        Rule(
            "!has(self.split) || (has(self.uri) && self.uri.startsWith('hf://'))",
            "only hf:// data sets have named splits; use a URI that matches the files wanted",
            lambda s: s.split is None or (s.uri or "").startswith("hf://"),
            field="split",
        ),
    )


SPLITS = ("train", "validation", "test")
"""What no set may be called."""


class EvaluationSet(Model):
    """More labelled rows to judge by, of another domain, time, group or language, say."""

    name: SetName = Field(description="What it is called in status and report; unique in the job.")
    uri: DataUri = Field(description="Objects to read, as for data.train, with the same columns and classes.")
    revision: Revision | None = Field(None, description="Branch, tag or commit of an hf:// data set.")
    split: Split | None = Field(None, description="Split of an hf:// data set; \"test\" when absent.")

    RULES = (
        no_file(),
        REVISION_OF_HUB,
        _SPLIT_OF_HUB,
        Rule(
            f"!(self.name in [{', '.join(map(cel_text, SPLITS))}])",
            "must not be train, validation or test, which the job's own rows are called; choose another name",
            lambda s: s.name not in SPLITS,
            field="name",
        ),
    )


_ROLES = tuple(dict.fromkeys(role.name for task in TASKS.values() for role in task.roles if not role.several))
_NAMED = "[" + ", ".join(f"has(self.{role}) ? self.{role} : ''" for role in _ROLES) + "]"


class Columns(Model):
    """Which columns hold what.

    Columns left out are found by their usual names (see tasks.py); status.resolved.columns shows those in force.
    """

    text: Column | None = Field(None, description="The text that the model is given.")
    text_pair: Column | None = Field(None, description="A second text, for pairs of sentences.")
    label: Column | None = Field(None, description="The class: a string, integer or boolean; integers go by the names that the data set has for them.")
    image: Column | None = Field(None, description="The image: a path relative to the file that names it, an s3:// or file:// URI, or in parquet its bytes, as they are or as {bytes, path}.")
    tokens: Column | None = Field(None, description="The words of a text: a list of strings, or the same as JSON text.")
    tags: Column | None = Field(None, description="The tag of each word, a list as long as tokens: of entities in IOB1, IOB2 (BIO), IOBES or BILOU, or plain tags (parts of speech); integers go by the names that the data set has for them. Entities are learned as IOB2, whatever the data has.")
    spans: Column | None = Field(None, description='The entities of a text: a list of {"start", "end", "label"}, or the same as JSON text; places count characters from 0, end is the first behind the entity. White space at the ends is left off, and words are taken whole. None may overlap.')
    labels: Column | None = Field(None, description="The classes of a row, any number of them: a list of strings, integers or booleans, or the same as JSON text; an empty list where the row has none.")
    label_columns: tuple[Column, ...] | None = Field(None, min_length=1, max_length=256, description="Instead of labels: columns that stand for one class each, 1 or true where the row has it, 0 or false where it has not.")
    score: Column | None = Field(None, description="The number to predict; csv has it as text, with a point for decimals.")
    messages: Column | None = Field(None, description="A chat: a list of {role, content}, tool_calls beside or instead of the assistant's content; or the same as JSON text.")
    tools: Column | None = Field(None, description="The tools that a chat may call: a list of objects, or the same as JSON text; may be empty.")
    prompt: Column | None = Field(None, description="The text that the model is given.")
    context: Column | None = Field(None, description="Beside question: the text that holds the answers. Beside prompt: a text that it is about, put behind it after a blank line (Alpaca's input); may be empty, and is looked for only where prompt is not named.")
    completion: Column | None = Field(None, description="The text that the model learns to write.")
    question: Column | None = Field(None, description="What is asked of the context.")
    answers: Column | None = Field(None, description='The answers as they stand in the context: {text: [...], answer_start: [...]} as SQuAD has them (starts count characters from 0), a list of {text, start}, or either as JSON text. None in it: there is no answer. The first is learned; all count when the model is judged.')
    answer: Column | None = Field(None, description="Instead of answers: the one answer as it stands in the context; empty or null: there is none.")
    answer_start: Column | None = Field(None, description="Where in the context the answer starts, in characters from 0; where it is not known the first place of the answer's text is taken.")
    unanswerable: Column | None = Field(None, description="Whether the context holds no answer: true or false; where true the row's answers do not count (SQuAD's is_impossible).")

    RULES = (
        Rule(
            "has(self.prompt) == has(self.completion)",
            "prompt and completion go together; set both or neither",
            lambda s: (s.prompt is None) == (s.completion is None),
        ),
        Rule(
            "!(has(self.messages) && has(self.prompt))",
            "set either messages or prompt and completion",
            lambda s: s.messages is None or s.prompt is None,
            field="messages",
        ),
        Rule(
            "!has(self.textPair) || has(self.text)",
            "set text too",
            lambda s: s.text_pair is None or s.text is not None,
            field="textPair",
        ),
        Rule(
            "has(self.tokens) == has(self.tags)",
            "tokens and tags go together; set both or neither",
            lambda s: (s.tokens is None) == (s.tags is None),
        ),
        Rule(
            "!has(self.spans) || has(self.text)",
            "set text too",
            lambda s: s.spans is None or s.text is not None,
            field="spans",
        ),
        Rule(
            "!(has(self.tokens) && has(self.text))",
            "set either tokens and tags, or text and spans",
            lambda s: s.tokens is None or s.text is None,
            field="tokens",
        ),
        Rule(
            "!has(self.tools) || has(self.messages)",
            "set messages too; only chats have tools",
            lambda s: s.tools is None or s.messages is not None,
            field="tools",
        ),
        Rule(
            "!has(self.context) || has(self.prompt) || has(self.question)",
            "set prompt and completion too, or question; a context belongs to one of them",
            lambda s: s.context is None or s.prompt is not None or s.question is not None,
            field="context",
        ),
        Rule(
            "!(has(self.answers) && has(self.answer))",
            "set either answers or answer",
            lambda s: s.answers is None or s.answer is None,
            field="answers",
        ),
        Rule(
            "!has(self.answerStart) || has(self.answer)",
            "set answer too; answers hold their starts themselves",
            lambda s: s.answer_start is None or s.answer is not None,
            field="answerStart",
        ),
        Rule(
            "!has(self.unanswerable) || has(self.question)",
            "set question too; only questions go without an answer",
            lambda s: s.unanswerable is None or s.question is not None,
            field="unanswerable",
        ),
        Rule(
            "!(has(self.labels) && has(self.labelColumns))",
            "set either labels or labelColumns",
            lambda s: s.labels is None or s.label_columns is None,
            field="labels",
        ),
        Rule(
            f"{_NAMED}.all(c, c == '' || {_NAMED}.exists_one(d, d == c))",
            "one column cannot play two roles; choose another for one of them",
            lambda s: len(set(_single(s))) == len(_single(s)),
        ),
        Rule(
            "!has(self.labelColumns) || self.labelColumns.all(c, self.labelColumns.exists_one(d, d == c))",
            "name each column once; remove the repeated ones",
            lambda s: s.label_columns is None or len(set(s.label_columns)) == len(s.label_columns),
            field="labelColumns",
        ),
        Rule(
            f"!has(self.labelColumns) || self.labelColumns.all(c, !(c in {_NAMED}))",
            "one column cannot play two roles; choose another for one of them",
            lambda s: s.label_columns is None or set(s.label_columns).isdisjoint(_single(s)),
            field="labelColumns",
        ),
    )


def _single(columns: Columns) -> list[str]:
    """The columns that play a role alone."""
    return [name for name in columns.to_json().values() if isinstance(name, str)]


class Data(Model):
    """What to learn from, and what to judge by. Objects are streamed; nothing is downloaded whole."""

    train: TrainSource = Field(description="Rows to learn from.")
    validation: HeldOutSource | None = Field(None, description="Rows for the evaluations during training; these choose the best checkpoint.")
    test: HeldOutSource | None = Field(None, description="Rows for the one evaluation at the end; never used to choose anything.")
    format: FormatChoice = Field("auto", description="Format of the objects; auto goes by the name (.jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt, with .gz or .zst; .jpg, .jpeg, .png, .webp, .gif and .bmp where the task reads images). jsonl: one object a line, or one JSON array of objects. csv: a header, then fields cut by commas, semicolons or tabs (tsv); a field in double quotes may hold line breaks, a quote in it is doubled, a backslash escapes nothing. text: each line is a row, in the column text; blank lines are none.")
    columns: Columns | None = Field(None, description="Which columns hold what; found by their usual names when absent.")
    labels: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] | None = Field(
        None,
        min_length=2,
        max_length=256,
        description="The classes, in the order of the model's outputs; when absent the data set's own names of them,"
        " else all that occur, sorted. For entities: their types, or the tags (O, B-TYPE, I-TYPE)."
        " More than 256 are not named here; up to 10,000 may occur.",
    )
    max_bad_rows: int = Field(0, ge=0, le=1_000_000, description="How many unreadable or unusable rows to leave out, counted and reported, before the job is refused.")

    RULES = (
        Rule(
            "!has(self.labels) || self.labels.all(x, self.labels.exists_one(y, y == x))",
            "each label may be named once; remove the repeated ones",
            lambda s: s.labels is None or len(set(s.labels)) == len(s.labels),
            field="labels",
        ),
        Rule(
            "!(has(self.labels) && has(self.columns) && has(self.columns.labelColumns))",
            "columns.labelColumns names the classes already; remove labels",
            lambda s: s.labels is None or s.columns is None or s.columns.label_columns is None,
            field="labels",
        ),
        Rule(
            "!(has(self.validation) && has(self.validation.fraction) && has(self.test) && has(self.test.fraction))"
            " || self.validation.fraction + self.test.fraction <= 0.5",
            "validation.fraction and test.fraction together may be 0.5 at most; lower one of them",
            lambda s: sum(h.fraction for h in (s.validation, s.test) if h and h.fraction) <= 0.5,
            field="test",
        ),
    )
