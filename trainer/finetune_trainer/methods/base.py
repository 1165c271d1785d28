"""What a tuning method is: one frozen value that all else asks, so that nothing outside asks which method it is.

Nothing here or in a method's module imports torch, transformers or peft before a model is tuned: the prepare step,
the model card and the comparison of checkpoints read these values too, and torch takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.method import MethodInfo, methods_for
from finetune_api.status import Finding
from finetune_api.tasks import TASKS
from finetune_api.text import listed
from finetune_api.tuning import Method
from finetune_trainer.model.head import HeadPolicy

if TYPE_CHECKING:  # it brings torch
    from finetune_trainer.objectives.base import Objective


def instead(model: Any, head: HeadPolicy) -> str:
    """A hint: the methods that are known to fit models of the type with the task."""
    fit = [
        name
        for task in TASKS.values()
        if task.name == head.serves
        for name in methods_for(task, model.config.model_type)
    ]
    return f"Use method {listed(fit or ['full'], 'or')}."


@dataclass(frozen=True, slots=True)
class Identity:
    """A setting that a checkpoint must share with the run that goes on from it."""

    field: str
    """Where the user wrote it."""
    value: Callable[[Any], Any]
    """Read from the method's settings; plain JSON."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A part of the model that is trained later than the rest."""

    step: int
    """The first step that trains it; steps count from 1."""
    part: str
    """What it is, for people."""
    names: frozenset[str]
    """Its parameters."""


def _at_once(model: Any, settings: Any, head: HeadPolicy, steps_per_epoch: int) -> Sequence[Opening]:
    """For methods that train from the first step whatever they train."""
    return ()


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a method teaches in place of the task's own objective: rows are compared, and which of them are of one class
    is learned. The head learns nothing of that; it is fitted to the task's objective whenever the model is to be judged
    or written, and so hangs on the other weights alone.
    """

    objective: Callable[[], Objective]
    """Of groups of rows."""
    layer: Callable[[Any], Any]
    """(model) -> the linear layer that is fitted to what `model.pooled` gives."""
    strength: Callable[[Any], float]
    """(settings) -> how small that layer's weights are held; see `fit_head`."""


@dataclass(frozen=True, slots=True)
class AdapterFormat:
    """How weights that leave the base alone are written beside it, loaded again, and merged into it."""

    library: str
    """What loads them, in the hub's words; a package of Python."""
    weights: str
    """The file of weights."""
    save: Callable[[Any, Path, str, str | None], None]
    """(model, folder, base, revision): write the adapter alone; `base` is what the library shall load it onto."""
    merge: Callable[[Any], Any] | None
    """The whole model with the adapter merged in; uses up the model given. None where that is impossible."""
    usage_import: str
    """A line of Python for the model card."""
    usage_load: str
    """A Python expression for the model card; `{base}` stands for one that makes the base model."""


def by_applying(
    apply: Callable[[Any, Any, HeadPolicy, int], Any],
) -> Callable[[Any, Any, HeadPolicy], Sequence[Finding]]:
    """The check of a method whose `apply` needs no weights to find out what does not fit."""

    def check(model: Any, settings: Any, head: HeadPolicy) -> Sequence[Finding]:
        apply(model, settings, head, 0)
        return ()

    return check


@dataclass(frozen=True, slots=True)
class TuningMethod:
    """One way to tune a model. `settings` below is the part of spec.method that belongs to the method, or None."""

    info: MethodInfo
    """Its row of the contract: name, whether it has settings, what it does to the learning rate."""
    apply: Callable[[Any, Any, HeadPolicy, int], Any]
    """(model, settings, head, seed): the model to train. Exactly the method's weights require gradients: these are what
    is trained, and what a checkpoint holds. Raises JobError naming the field that does not fit the model."""
    check: Callable[[Any, Any, HeadPolicy], Sequence[Finding]]
    """(model, settings, head): whether the method fits a model that is built without its weights; raises as `apply`."""
    phrase: str
    """For a sentence of the model card."""
    title: str
    """For the head of the report."""
    defaults: Any = None
    """The settings where the user gives none."""
    identity: Mapping[str, Identity] = field(default_factory=dict)
    """What must match on resume, by the name that checkpoints store."""
    packages: tuple[str, ...] = ()
    """Imported once before the workers are forked, and recorded with their versions."""
    adapter: AdapterFormat | None = None
    """Where only adapters are written; else the whole model is."""
    openings: Callable[[Any, Any, HeadPolicy, int], Sequence[Opening]] = _at_once
    """(model as `apply` left it, settings, head, steps per epoch) -> what is trained later than the rest. `apply` marks
    it as trained too. Nothing else decides what a step trains (I3)."""
    head: Callable[[HeadPolicy, Any], HeadPolicy] = lambda head, settings: head
    """(the task's, settings) -> the head that the model is given; every other `head` is that one."""
    extra_positions: Callable[[Any], int] = lambda settings: 0
    """(settings) -> how many of the model's positions the method takes in every row."""
    rests: Callable[[Any], bool] = lambda settings: False
    """(settings) -> whether parts in which nothing is trained run as in an evaluation."""

    lesson: Lesson | None = None
    """Where the task's own objective does not train the model."""

    @property
    def name(self) -> str:
        """As in spec.method.type."""
        return self.info.name

    def settings(self, method: Method) -> Any:
        """The settings in force, of a job's spec.method."""
        return method.settings or self.defaults
