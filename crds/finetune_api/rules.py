"""The spec's rules that follow from the tables of tasks and methods, in CEL and in Python, with their messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from finetune_api.base import Rule, cel_text
from finetune_api.method import MethodInfo
from finetune_api.metrics import AUTO
from finetune_api.optimizers import OptimizerInfo
from finetune_api.schedules import ScheduleInfo
from finetune_api.tasks import Role, TaskInfo
from finetune_api.text import listed

BETAS = ("beta1", "beta2")


def column_rules(tasks: Mapping[str, TaskInfo]) -> tuple[Rule, ...]:
    """Columns may be named for the task's own roles only: one rule for the roles of the same tasks."""
    groups: dict[tuple[str, ...], list[Role]] = {}
    for role in {role.name: role for task in tasks.values() for role in task.roles}.values():
        readers = tuple(task.name for task in tasks.values() if role.name in {own.name for own in task.roles})
        groups.setdefault(readers, []).append(role)
    return tuple(_column_rule(tasks, readers, roles) for readers, roles in groups.items() if len(readers) < len(tasks))


def _column_rule(tasks: Mapping[str, TaskInfo], readers: tuple[str, ...], roles: list[Role]) -> Rule:
    together = {role.name for role in roles}
    names = [role.name for role in roles if role.needs not in together]  # the others never stand without these
    required = [role.name for role in roles if not role.optional] or names
    instead = (f"for {task.name} map {_alternatives(task)}" for task in tasks.values() if task.name not in readers)
    named = " || ".join(f"has(self.data.columns.{name})" for name in names)
    return Rule(
        f"{_one_of('self.task', readers)} || !has(self.data.columns) || !({named})",
        "; ".join((f"{listed(required)} {'is' if len(required) == 1 else 'are'} for {listed(readers)}", *instead)),
        lambda s: s.task in readers or not s.data.columns or set(names).isdisjoint(s.data.columns.to_json()),
        field="data.columns",
    )


def _alternatives(task: TaskInfo) -> str:
    return ", or ".join(listed([r.name for r in roles if not r.optional]) for roles in task.alternatives)


def labels_rule(tasks: Mapping[str, TaskInfo]) -> Rule:
    """spec.data.labels is for tasks whose rows belong to classes."""
    names = [task.name for task in tasks.values() if task.labels]
    return Rule(
        f"{_one_of('self.task', names)} || !has(self.data.labels)",
        f"only {listed(names)} {'has' if len(names) == 1 else 'have'} labels; remove it",
        lambda s: s.task in names or s.data.labels is None,
        field="data.labels",
    )


def metric_rule(tasks: Mapping[str, TaskInfo]) -> Rule:
    """spec.evaluation.metric is one of the task's."""
    metric = "self.evaluation.metric"
    own = (f"(self.task == {cel_text(t.name)} && {_one_of(metric, t.metrics)})" for t in tasks.values())
    return Rule(
        " || ".join((f"{metric} == {cel_text(AUTO)}", *own)),
        "; ".join(f"{task.name} has {listed(task.metrics)}" for task in tasks.values()),
        lambda s: s.evaluation.metric in (AUTO, *tasks[s.task].metrics),
        field="evaluation.metric",
    )


def smoothing_rule(tasks: Mapping[str, TaskInfo]) -> Rule:
    """spec.training.labelSmoothing is for tasks whose loss is a cross-entropy."""
    names = [task.name for task in tasks.values() if task.smooths]
    return Rule(
        f"!has(self.training.labelSmoothing) || self.training.labelSmoothing == 0.0 || {_one_of('self.task', names)}",
        f"only {listed(names)} {'has' if len(names) == 1 else 'have'} targets to smooth; remove it",
        lambda s: not s.training.label_smoothing or s.task in names,
        field="training.labelSmoothing",
    )


def class_weights_rule(tasks: Mapping[str, TaskInfo]) -> Rule:
    """spec.training.classWeights is for tasks that can weigh their classes."""
    names = [task.name for task in tasks.values() if task.class_weights]
    return Rule(
        f"!has(self.training.classWeights) || self.training.classWeights == 'none' || {_one_of('self.task', names)}",
        f"only {listed(names)} {'weighs' if len(names) == 1 else 'weigh'} classes; remove it",
        lambda s: s.training.class_weights in (None, "none") or s.task in names,
        field="training.classWeights",
    )


def per_class_rule(tasks: Mapping[str, TaskInfo]) -> Rule:
    """spec.data.train.perClass is for tasks whose rows have one class each."""
    names = [task.name for task in tasks.values() if task.exclusive]
    return Rule(
        f"!has(self.data.train.perClass) || {_one_of('self.task', names)}",
        f"only rows of {listed(names)} have one class each; remove it",
        lambda s: s.data.train.per_class is None or s.task in names,
        field="data.train.perClass",
    )


def merge_rule(methods: Mapping[str, MethodInfo]) -> Rule:
    """spec.output.merge is for methods that leave adapters."""
    names = [method.name for method in methods.values() if method.merges]
    subject = f"method {names[0]} has" if len(names) == 1 else f"methods {listed(names)} have"
    return Rule(
        f"!self.output.merge || {_one_of('self.method.type', names)}",
        f"only {subject} adapters to merge; remove it",
        lambda s: not s.output.merge or s.method.type in names,
        field="output.merge",
    )


def recompute_rule(methods: Mapping[str, MethodInfo]) -> Rule:
    """spec.training.gradientCheckpointing is for methods that compute a layer from what went into it."""
    names = [method.name for method in methods.values() if not method.recomputes]
    return Rule(
        f"!self.training.gradientCheckpointing || !({_one_of('self.method.type', names)})",
        f"{listed(names)} {'needs' if len(names) == 1 else 'need'} what the layers computed; set it to false",
        lambda s: not s.training.gradient_checkpointing or s.method.type not in names,
        field="training.gradientCheckpointing",
    )


def suits_rules(tasks: Mapping[str, TaskInfo], methods: Mapping[str, MethodInfo]) -> tuple[Rule, ...]:
    """A method that does not suit every task goes with those that it suits."""
    return tuple(_suits_rule(tasks, methods, method) for method in methods.values() if method.suits)


def _suits_rule(tasks: Mapping[str, TaskInfo], methods: Mapping[str, MethodInfo], method: MethodInfo) -> Rule:
    fit = [task.name for task in tasks.values() if method.fits(task)]
    others = [other.name for other in methods.values() if other.universal]
    return Rule(
        f"self.method.type != {cel_text(method.name)} || {_one_of('self.task', fit)}",
        f"{method.name} is for {listed(fit)} only, since {method.reason}; set {listed(others, 'or')}",
        lambda s: s.method.type != method.name or s.task in fit,
        field="method.type",
    )


def settings_rules(methods: Mapping[str, MethodInfo]) -> tuple[Rule, ...]:
    """A method's settings go with its type only."""
    return tuple(_settings_rule("type", method) for method in methods.values() if method.settings)


def task_settings_rules(tasks: Mapping[str, TaskInfo]) -> tuple[Rule, ...]:
    """A task's settings go with that task only."""
    return tuple(_settings_rule("task", task) for task in tasks.values() if task.settings)


def _settings_rule(chosen_by: str, row: MethodInfo | TaskInfo) -> Rule:
    """The field for a row's settings goes with the row that the field `chosen_by` names."""
    name, attribute = row.name, row.attribute
    return Rule(
        f"!has(self.{row.settings_field}) || self.{chosen_by} == {cel_text(name)}",
        f"only with {chosen_by} {name}; remove it or set {chosen_by}: {name}",
        lambda s: getattr(s, attribute) is None or getattr(s, chosen_by) == name,
        field=row.settings_field,
    )


def beta_rules(optimizers: Mapping[str, OptimizerInfo]) -> tuple[Rule, ...]:
    """A running mean's share is for optimizers that have such a mean."""
    return tuple(_beta_rule(beta, [o.name for o in optimizers.values() if getattr(o, beta)]) for beta in BETAS)


def _beta_rule(beta: str, names: list[str]) -> Rule:
    return Rule(
        f"!has(self.{beta}) || !has(self.optimizer) || {_one_of('self.optimizer', names)}",  # the default has both
        f"only {listed(names)} {'has' if len(names) == 1 else 'have'} it; remove it or choose such an optimizer",
        lambda s: getattr(s, beta) is None or s.optimizer in (None, *names),
        field=beta,
    )


def schedule_rules(schedules: Mapping[str, ScheduleInfo]) -> tuple[Rule, ...]:
    """What only one schedule reads goes with it only."""
    return tuple(_schedule_rule(row.name, field) for row in schedules.values() for field in row.settings)


def _schedule_rule(name: str, field: str) -> Rule:
    attribute = re.sub("([A-Z])", r"_\1", field).lower()
    return Rule(
        f"!has(self.{field}) || self.schedule == {cel_text(name)}",
        f"only with schedule {name}; remove it or set schedule: {name}",
        lambda s: getattr(s, attribute) is None or s.schedule == name,
        field=field,
    )


def _one_of(value: str, names: Iterable[str]) -> str:
    first, *more = map(cel_text, names)
    return f"{value} in [{', '.join((first, *more))}]" if more else f"{value} == {first}"
