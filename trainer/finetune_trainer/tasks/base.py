"""What a task is: one frozen value with all that the trainer does for it; each stands in a file beside this one.

The half that reads rows needs no torch, since the prepare step checks every row with it; the half that computes is
imported when it is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.run import RunConfig
from finetune_api.sources import Columns
from finetune_api.tasks import TaskInfo
from finetune_api.tuning import Training
from finetune_trainer.batches.example import Example
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.processor import TOKENIZER, ProcessorKind
from finetune_trainer.stream.profile import Profile, Spread
from finetune_trainer.tasks.constants import Constant

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

Row = Mapping[str, Any]
Inputs = Any
"""A processor of the task's kind (`Task.processor`): its tokenizer, or what else encodes its raw inputs."""
Decision = Mapping[str, Any]
"""How outputs become answers, as the validation rows chose it (thresholds, say); plain JSON, empty: as usual."""


class NothingToLearn(ValueError):
    """A row, good in itself, of which nothing can be learned; the message says why, and what to do.

    Such rows are counted.
    """


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a task's functions know of the job: what the spec says of the task, and what the prepare step found."""

    columns: Mapping[str, str]
    """Role -> column; of a role that several columns play, one entry each: labelColumns[0], labelColumns[1], …"""
    labels: Sequence[str] = ()
    """The classes, in the order of the model's outputs; none where the task has none."""
    label_counts: Sequence[int] = ()
    """Training rows of each class; none where they were not counted."""
    settings: Any = None
    """The spec's field for this task, or the task's defaults."""
    training: Training = field(default_factory=Training)
    """spec.training."""
    rows: int = 0
    """Training rows; 0 where they were not counted."""
    spread: Spread | None = None
    """Of the numbers to be learned; None where the task has none."""
    places: Mapping[str, int] = field(init=False, compare=False)
    """Class -> its place in `labels`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {name: i for i, name in enumerate(self.labels)})

    @property
    def judging(self) -> JobFacts:
        """For evaluations: without what is done to the loss for training's sake alone."""
        return dataclasses.replace(self, training=self.training.model_copy(update={"label_smoothing": None}))

    @classmethod
    def of(
        cls,
        config: RunConfig,
        task: Task,
        columns: Mapping[str, str],
        labels: Sequence[str] | None = None,
        label_counts: Sequence[int] | None = None,
        rows: int = 0,
        spread: Spread | None = None,
    ) -> JobFacts:
        """Those of a job."""
        settings = config.task_settings or task.defaults
        return cls(columns, labels or (), label_counts or (), settings, config.training, rows, spread)

    @classmethod
    def found(cls, config: RunConfig, task: Task, profile: Profile) -> JobFacts:
        """Those of a job whose prepare step is done."""
        p = profile
        return cls.of(config, task, p.columns, p.labels, p.label_counts, p.data.train_rows, p.spread)


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance hangs on in encoding a row (masks, augmentation), so that no generator runs on (I3)."""

    seed: int = 0
    epoch: int | None = None
    """None: the row is judged, not learned from. Chance is then the same at each evaluation."""
    row: int = 0
    """The row's number in its split."""

    def generator(self) -> np.random.Generator:
        """The same for the same seed, epoch and row."""
        return np.random.default_rng((self.seed, 0 if self.epoch is None else self.epoch + 1, self.row))


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a few rows are answered with, for the report. `ends`: tokens that end a text; `stop`: whether to give up."""

    facts: JobFacts
    tokenizer: Inputs
    max_length: int
    decision: Decision
    ends: Container[int | None]
    stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Omission:
    """What encoding left out of some rows, by their numbers; `message` may show {share} and {split}."""

    kind: str
    rows: Sequence[int]
    message: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A row that is looked at: `source` is a data: URI of a small image."""

    source: str
    true: str
    predicted: str
    score: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """A row that was answered wrong, for people: what it says, what is true, what the model said instead, and how far
    off or how sure it was, by name. Marks are [start, end, label] in characters of the text. `picture`: a data: URI,
    where the row is looked at.
    """

    text: str
    true: str
    said: str
    figures: Mapping[str, float]
    true_marks: Sequence[Sequence[Any]] = ()
    said_marks: Sequence[Sequence[Any]] = ()
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How a task's wrong answers are shown: `kinds` are those that its tally tells of, each with its title."""

    kinds: Mapping[str, str]
    show: Callable[[Any, Sequence[Row], Sequence[Kept], Sampling], Sequence[Mistake]]
    """(model, rows, kept, sampling) -> one for each row and what was kept of it. The model is in eval mode, the caller
    in torch.inference_mode(); rows of files hold their content."""


def role_of(entry: str) -> str:
    """The role of an entry of role -> column: labelColumns of labelColumns[0]."""
    return entry.partition("[")[0]


def _played_by(columns: Mapping[str, str], roles: Collection[str]) -> list[str]:
    return [name for entry, name in columns.items() if role_of(entry) in roles]


def no_constant(facts: JobFacts) -> None:
    """For tasks without an answer that suits many rows."""


def no_start(facts: JobFacts) -> None:
    """For tasks whose outputs start around zero."""


def _nothing(*arguments: Any) -> Sequence[Omission]:
    """For tasks whose encoding leaves nothing out."""
    return ()


@dataclass(frozen=True, slots=True)
class Naming:
    """How the classes of rows and the outputs of the model's head go together; `columns` are role -> column."""

    allowed: Callable[[Sequence[str], Mapping[str, str]], Sequence[str]]
    """(names that spec.data.labels or the data set gives, columns) -> the classes that rows may have."""
    outputs: Callable[[Sequence[str], Sequence[str], Mapping[str, str]], Sequence[str]]
    """(names, classes that training rows have, columns) -> the outputs in their order; JobError where they cannot be
    told."""
    classes: Callable[[Sequence[str], Mapping[str, str]], Sequence[str]]
    """(outputs, columns) -> the classes that rows may have."""


SAME = Naming(
    allowed=lambda names, columns: names,
    outputs=lambda names, seen, columns: names,
    classes=lambda outputs, columns: outputs,
)
"""Each class is an output."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task's values and functions; `columns` in their arguments are role -> column."""

    info: TaskInfo
    """Its row of the contract's table."""
    head: HeadPolicy
    """What it makes of the model's head."""
    columns: Callable[[Sequence[str], Columns | None], dict[str, str]]
    """(found, wanted) -> role -> column, from the data's columns and spec.data.columns; JobError if one is missing."""
    classes: Callable[[Row, Mapping[str, str]], Sequence[str]]
    """(row, columns) -> the row's classes as text, each once; none where it has none that can be used."""
    check_row: Callable[[Row, Mapping[str, str]], str | None]
    """(row, columns) -> what is wrong with the row and what to do, or None."""
    encode: Callable[[Row, JobFacts, Inputs, int, Draw], Sequence[Example]]
    """(row, facts, tokenizer, max_length, draw) -> its examples; NothingToLearn where nothing can be learned."""
    objective: Callable[[JobFacts], Objective]
    """What training minimises."""
    tally: Callable[[JobFacts, Decision], Tally]
    """(facts, decision) -> an empty tally for an evaluation that decides by what earlier rows chose."""
    usage: Callable[[JobFacts, Decision], list[str]]
    """(facts, decision) -> Python that tries `model` and `tokenizer`, for the model card."""
    predict: Callable[[Any, Sequence[Row], JobFacts, Decision, Inputs, int], list[dict[str, Any]]]
    """(model, rows, facts, decision, tokenizer, max_length) -> an answer to each row, plain JSON. The rows have passed
    `check_input`, and need not have what is learned; the model is in eval mode. `answers` has what it is made of."""
    answer: Callable[[np.ndarray, JobFacts, Decision], dict[str, Any]] | None = None
    """(scores, facts, decision) -> `predict`'s answer to a row of which the model gave these scores, where a row is one
    example; None for other tasks."""
    known_classes: Callable[[Mapping[str, str]], tuple[str, ...]] = lambda columns: ()
    """(columns) -> the classes, where the columns tell them."""
    number: Callable[[Row, Mapping[str, str]], float] | None = None
    """(row, columns) -> the number to be learned of a row that has passed check_row; None where there is none."""
    processor: ProcessorKind = TOKENIZER
    """What encodes its raw inputs; `tokenizer` in the arguments of its functions is one."""
    varies: Callable[[JobFacts], bool] = lambda facts: False
    """Whether what is learned of a row, or its inputs, differs from epoch to epoch."""
    naming: Naming = SAME
    """How the classes of rows become outputs."""
    defaults: Any = None
    """The settings of the task where the spec gives none."""
    check_input: Callable[[Row, Mapping[str, str]], str | None] | None = None
    """(row, columns) -> what keeps a row from being answered, or None, as `check_row` says it; at None each column must
    hold a text but those of roles that are learned."""
    constant: Callable[[JobFacts], Constant | None] = no_constant
    """(facts) -> the best answer that does not look at the row; None where there is none to speak of."""
    start: Callable[[JobFacts], Sequence[float] | None] = no_start
    """(facts) -> what a new head answers before it has seen a row, an output each; None: what its draw makes of it."""
    undecided: Decision = field(default_factory=dict)
    """What outputs become answers by where no validation row was there to choose it."""
    check_tokens: Callable[[Row, Mapping[str, str]], str | None] = lambda row, columns: None
    """(row, columns) -> what is wrong with the tokens of a row that has passed check_row, or None; see `embeddings`."""
    check_file: Callable[[bytes], tuple[str | None, tuple[str, ...]]] | None = None
    """(content) -> what is wrong with the file that a row stands for, or None; and what about it is odd but good. For
    tasks with a role of files: `encode` and `predict` are given the content in the row."""
    oddities: str = ""
    """A sentence for `{counts}` of what is odd about files."""
    pictures: Callable[[Any, Sequence[Row], JobFacts, Decision, Inputs], Sequence[Picture]] | None = None
    """(model, rows, facts, decision, processor) -> some of these rows with the model's answers, for the report."""
    samples: Callable[[Any, Iterable[Row], Sampling], list[dict[str, Any]]] | None = None
    """(model, rows, sampling) -> what the model answers to a few rows, for the report: {prompt, text, reference} each,
    and `marks` and `referenceMarks` ([start, end, label] in characters) where parts of the texts are to be marked; None
    where it shows nothing."""
    mistakes: Mistakes | None = None
    """How its wrong answers are shown; None where none are."""
    omissions: Callable[..., Sequence[Omission]] = _nothing
    """(rows, hidden, columns, tokenizer) -> what encoding leaves out of a sample, from number -> row and number -> how
    many parts are hidden."""

    @property
    def usual(self) -> dict[str, tuple[str, ...]]:
        """Role -> the names that its column usually has."""
        return {role.name: role.usual for role in self.info.roles}

    def class_columns(self, columns: Mapping[str, str]) -> list[str]:
        """The columns that name the row's classes."""
        return _played_by(columns, {role.name for role in self.info.roles if role.classes})

    def learned_columns(self, columns: Mapping[str, str]) -> list[str]:
        """The columns that hold what is to be learned."""
        return _played_by(columns, self.learned_roles)

    @property
    def learned_roles(self) -> frozenset[str]:
        """Roles whose column holds what is to be learned: a row that is to be answered may lack it."""
        return frozenset(role.name for role in self.info.roles if role.classes or role.learned)

    def no_input(self, columns: Mapping[str, str]) -> list[str]:
        """The columns that make a row no other one: what is learned, but for a text to be written, of which one input
        may have several."""
        return self.class_columns(columns) if self.head.writes else self.learned_columns(columns)

    @property
    def file_roles(self) -> frozenset[str]:
        """Roles whose column stands for a file."""
        return frozenset(role.name for role in self.info.roles if role.files)

    @property
    def optional(self) -> frozenset[str]:
        """Roles whose column a row may lack."""
        return frozenset(role.name for role in self.info.roles if role.optional)
