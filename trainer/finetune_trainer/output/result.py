"""All that the report, the card and metrics.json are made of: plain values, no tensors, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from finetune_api.metrics import LOSS
from finetune_api.report import Report
from finetune_api.run import RunConfig
from finetune_api.status import Verdict
from finetune_trainer.methods import TuningMethod, method_for
from finetune_trainer.output.judged import Judged, Scores, words_of_worst, worst
from finetune_trainer.tasks.base import Decision, JobFacts, Mistake, Picture


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class was judged."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    threshold: float | None = None
    """The share from which it counts, where it was chosen."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Numbers predicted and true, counted in bins: counts[prediction][truth], `bounds` are those of the bins."""

    bounds: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


Marks = tuple[tuple[int, int, str], ...]
"""Parts of a text: start, end (exclusive) and label, in their order; none overlap."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt with what the model made of it before and after tuning, and the parts of each that are marked."""

    prompt: str
    before: str
    after: str
    reference: str | None = None
    before_marks: Marks = ()
    after_marks: Marks = ()
    reference_marks: Marks = ()


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """A row that the model got wrong, and where it stands: its object, its number there, its line if it has one."""

    kind: str
    file: str
    row: int
    line: int | None
    mistake: Mistake

    @property
    def place(self) -> str:
        """file:line, or the file and the number of the row."""
        return f"{self.file}:{self.line}" if self.line else f"{self.file}, row {self.row:,}"


@dataclass(frozen=True, slots=True)
class Table:
    """Figures that a tally has beside its metrics, ready to be shown; the first column is text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Table:
        """From a tally's report."""
        return cls(plain["title"], tuple(plain["head"]), tuple(tuple(row) for row in plain["rows"]))


@dataclass(frozen=True, slots=True)
class Folds:
    """What cross-validation came to. `pooled`: over the rows of all folds together, with bounds; `decided`: a sentence
    on how outputs became answers, where that is chosen; `predictions`: the file in the output with an answer to each
    row.
    """

    rows: tuple[int, ...]
    metrics: tuple[Mapping[str, float], ...]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    pooled: Mapping[str, float]
    decided: str | None = None
    predictions: str | None = None


@dataclass(frozen=True)
class Result:
    """What a run came to.

    `report` is the final snapshot; `facts` and `decision` are what the task's functions take;
    `class_words` are what people call the classes, one of them, and what is counted of it;
    `confusion[i][j]` counts rows of class i that were taken for j (order of `labels`).
    `judged`: what it was judged by beside the test rows;
    `head`: the description of a head of our own (PooledModel), which lies beside the model; None for all others.
    `wrong_answers`: the worst ones of each kind, the worst first; `wrong_kinds`: the kinds' titles.
    `averaged`: which checkpoints' mean the weights are, as a sentence; None where they are one's.
    `attempts`: {"number", "fromStep", "lastStep", "seconds": {cause: seconds}} each, oldest first. `notes`: warnings
    that the reader should see.
    """

    config: RunConfig
    report: Report
    facts: JobFacts = field(default_factory=lambda: JobFacts({}))
    decision: Decision = field(default_factory=dict)
    head: Mapping[str, Any] | None = None
    averaged: str | None = None
    classes: tuple[ClassScore, ...] = ()
    class_words: tuple[str, str, str] = ("Classes", "class", "rows")
    confusion: tuple[tuple[int, ...], ...] | None = None
    tables: tuple[Table, ...] = ()
    judged: Judged = field(default_factory=Judged)
    pairs: Pairs | None = None
    folds: Folds | None = None
    samples: tuple[Sample, ...] = ()
    pictures: tuple[Picture, ...] = ()
    wrong_answers: tuple[WrongAnswer, ...] = ()
    wrong_kinds: Mapping[str, str] = field(default_factory=dict)
    attempts: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    license: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return tuple(self.facts.labels)

    @property
    def metrics(self) -> dict[str, float]:
        """The final evaluation: on the test rows, else the best known on the validation rows."""
        own = self.judged.validation
        return self.report.test or (dict(own.metrics) if own else self.report.evaluation) or {}

    @property
    def judged_on(self) -> str:
        """Which rows `metrics` is about."""
        return "test" if self.report.test else "validation"

    @property
    def judged_rows(self) -> int:
        """How many rows `metrics` is about; 0 where that is not known."""
        data = self.report.data
        return 0 if data is None else data.test_rows if self.judged_on == "test" else data.validation_rows

    @property
    def sets(self) -> Mapping[str, Scores]:
        """The scores on those of spec.evaluation.sets, by name."""
        return self.judged.sets

    @property
    def with_sets(self) -> dict[str, Scores]:
        """The rows that the result is judged on, if there are any, and the sets."""
        own = {self.judged_on: Scores(self.judged_rows, self.metrics)} if self.metrics else {}
        return own | dict(self.sets)

    @property
    def worst_set(self) -> str | None:
        """The set on which the model is worst, where there are several or it can be compared."""
        return worst(self.sets, self.metric) if len(self.with_sets) > 1 else None

    @property
    def compared(self) -> dict[str, Scores]:
        """The result, and what it is compared with on the same rows."""
        found = {"tuned": Scores(self.judged_rows, self.metrics)} if self.metrics else {}
        if self.judged_on in self.judged.base:
            found["base"] = self.judged.base[self.judged_on]
        if self.judged.constant:
            found[self.judged.constant_words] = self.judged.constant
        return found if len(found) > 1 else {}

    @property
    def learned_and_held_out(self) -> dict[str, Scores]:
        """A draw of the training rows beside the held-out ones."""
        if self.judged.learned is None:
            return {}
        held = self.judged.validation or Scores(self.judged_rows, self.metrics)
        return {"training": self.judged.learned, "validation" if self.judged.validation else self.judged_on: held}

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the final evaluations show."""
        return self.report.verdicts or ()

    @property
    def words_of_sets(self) -> str:
        """Which set is the worst, and by how much."""
        name = self.worst_set
        return "" if name is None else words_of_worst(name, self.with_sets, self.metric, self.judged_on)

    @property
    def metric(self) -> str:
        """The one that chooses the best checkpoint."""
        return (self.report.resolved and self.report.resolved.metric) or LOSS

    @property
    def method(self) -> TuningMethod:
        """How the model was tuned."""
        return method_for(self.config.method)

    @property
    def method_settings(self) -> dict[str, Any]:
        """The method's settings as the user wrote them; empty where there are none."""
        given = self.config.method.settings
        return given.to_json() if given else {}

    @property
    def training_settings(self) -> dict[str, Any]:
        """Those of spec.training that are in force, the optimizer's name among them."""
        training = self.config.training
        return {"optimizer": training.optimizer_info.name} | training.to_json()

    @property
    def base(self) -> str:
        """The base model as transformers and the hub name it: organisation/name for hf://, else the URI."""
        return name_of(self.config.model.uri)

    @property
    def title(self) -> str:
        """The job's name without its namespace."""
        return self.config.job.name.rpartition("/")[2]


def class_table(classes: Sequence[ClassScore], one: str, counted: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of classes, for people; with the thresholds, where some were chosen.

    `one`, `counted`: what a class is called, and what is counted of it.
    """
    chosen = any(c.threshold is not None for c in classes)
    head = (one, "precision", "recall", "F1", counted, *(("counts from",) if chosen else ()))
    rows = [
        (c.label, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.support:,}")
        + ((f"{c.threshold or 0:.4g}",) if chosen else ())
        for c in classes
    ]
    return head, rows


def fold_table(folds: Folds, shown: Callable[[float], str]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of folds, for people: each fold, their mean and spread, all rows together."""
    names = headline(dict(folds.mean))
    head = ("fold", "rows", *names)
    each = zip(folds.rows, folds.metrics, strict=True)
    rows = [(str(n), f"{count:,}", *(shown(metrics[m]) for m in names)) for n, (count, metrics) in enumerate(each, 1)]
    total = f"{sum(folds.rows):,}"
    pooled = dict(folds.pooled)
    bounded = {m: bounds(pooled, m) for m in names}
    return head, [
        *rows,
        ("mean", "", *(shown(folds.mean[m]) for m in names)),
        ("standard deviation", "", *(shown(folds.deviation[m]) if m in folds.deviation else "" for m in names)),
        ("all rows together", total, *(shown(pooled[m]) if m in pooled else "" for m in names)),
        *(
            [("95 % interval", "", *(f"{shown(b[0])} to {shown(b[1])}" if (b := bounded[m]) else "" for m in names))]
            if any(bounded.values())
            else []
        ),
    ]


def name_of(uri: str) -> str:
    """organisation/name of an hf:// URI; other URIs as they are."""
    return uri.removeprefix("hf://")


def loadable(uri: str) -> str:
    """What libraries load this model by: organisation/name for hf://, a path for file://.

    Object storage they cannot read, so an s3:// URI stays as it is.
    """
    return unquote(urlsplit(uri).path) if uri.startswith("file://") else name_of(uri)


def bounds(metrics: dict[str, float], name: str) -> tuple[float, float] | None:
    """The 95 % confidence interval of a metric, where it was computed."""
    low, high = metrics.get(f"{name}-low"), metrics.get(f"{name}-high")
    return None if low is None or high is None else (low, high)


def headline(metrics: dict[str, float]) -> list[str]:
    """Names of the metrics without those of their bounds."""
    return [name for name in metrics if not name.endswith(("-low", "-high"))]
