"""What only one task asks has a field of the spec that carries the task's name, and goes with that task only."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from finetune_api import run
from finetune_api.base import Model
from finetune_api.rules import smoothing_rule, task_settings_rules
from finetune_api.run import RunConfig
from finetune_api.tasks import TASKS
from finetune_api.tuning import Training

OWN = dataclasses.replace(TASKS["causal-lm"], name="word-count", settings=True)


class WordCount(Model):
    """Settings of a task."""

    least: int = 1


class OwnConfig(RunConfig):
    """A configuration that knows the task's field."""

    word_count: WordCount | None = None


def test_the_field_has_the_tasks_name() -> None:
    assert OWN.settings_field == "wordCount"
    assert TASKS["causal-lm"].settings_field == "causalLm"


def test_settings_go_with_their_task_only() -> None:
    (rule,) = task_settings_rules({"causal-lm": TASKS["causal-lm"], OWN.name: OWN})
    assert rule.cel == "!has(self.wordCount) || self.task == 'word-count'"
    assert (rule.field, rule.message) == ("wordCount", "only with task word-count; remove it or set task: word-count")
    other = SimpleNamespace(task="causal-lm", word_count=WordCount())
    assert not rule.check(other)
    for fine in (
        SimpleNamespace(task="causal-lm", word_count=None),
        SimpleNamespace(task="word-count", word_count=None),
    ):
        assert rule.check(fine)


def test_a_run_gives_the_settings_of_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OwnConfig.model_construct(task="causal-lm", word_count=None)
    assert config.task_settings is None, "it has none"
    monkeypatch.setitem(run.TASKS, OWN.name, OWN)  # type: ignore[misc]
    assert OwnConfig.model_construct(task=OWN.name, word_count=WordCount(least=3)).task_settings == WordCount(least=3)


def test_only_tasks_with_a_cross_entropy_have_targets_to_smooth() -> None:
    rule = smoothing_rule({"causal-lm": TASKS["causal-lm"], OWN.name: dataclasses.replace(OWN, smooths=False)})
    assert rule.cel == (
        "!has(self.training.labelSmoothing) || self.training.labelSmoothing == 0.0 || self.task == 'causal-lm'"
    )
    assert (rule.field, rule.message) == ("training.labelSmoothing", "only causal-lm has targets to smooth; remove it")
    for task, smoothing, fine in (("causal-lm", 0.1, True), ("word-count", 0.1, False), ("word-count", 0.0, True)):
        assert rule.check(SimpleNamespace(task=task, training=Training(label_smoothing=smoothing))) is fine
