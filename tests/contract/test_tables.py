"""The tables of tasks, methods and metrics agree with each other and with the models of the spec."""

from __future__ import annotations

import itertools

import pytest

from finetune_api.base import FieldError, parse
from finetune_api.families import DECODER, ENCODER, FAMILIES, VISION, of_kinds
from finetune_api.job import Spec
from finetune_api.method import METHODS, methods_for
from finetune_api.metrics import LOSS, METRICS, direction, higher_is_better
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS, TaskInfo, task_reading, usual_names
from finetune_api.tuning import Freeze, Lora, Method


def spec(task: str, **more: object) -> dict[str, object]:
    return {
        "task": task,
        "model": {"uri": "s3://m/a"},
        "data": {"train": {"uri": "s3://d/a"}, "validation": {"fraction": 0.1}},
        "output": {"uri": "s3://o/a"},
        **more,
    }


def test_the_columns_of_the_spec_are_the_roles_of_the_tasks() -> None:
    roles = {role.name for task in TASKS.values() for role in task.roles}
    assert roles == {field.alias for field in Columns.model_fields.values()}


def test_the_methods_with_settings_are_those_that_the_spec_has_fields_for() -> None:
    fields = {name: field.alias for name, field in Method.model_fields.items() if name != "type"}
    assert {m.attribute: m.settings_field for m in METHODS.values() if m.settings} == fields


@pytest.mark.parametrize("task", [*TASKS.values()], ids=lambda task: task.name)
def test_a_task_s_row_fits_the_other_tables(task: TaskInfo) -> None:
    assert set(task.metrics) <= set(METRICS)
    assert LOSS in task.metrics
    assert task.default_metric in task.metrics
    assert all(role.needs for role in task.roles if role.optional)
    needed = {role.needs for role in task.roles if role.needs}
    assert needed <= {role.name for role in task.roles if not role.optional}


@pytest.mark.parametrize("task", [*TASKS.values()], ids=lambda task: task.name)
def test_a_role_that_needs_another_is_refused_without_it(task: TaskInfo) -> None:
    for role in task.roles:
        if role.needs:
            with pytest.raises(FieldError, match=role.needs):
                parse(Columns, {role.name: "a"})


@pytest.mark.parametrize(("task", "metric"), [*itertools.product(TASKS, METRICS)])
def test_a_spec_may_name_the_metrics_of_its_task_only(task: str, metric: str) -> None:
    ranked = {"loss", "macro-f1", "mcc", "auroc", "average-precision"}
    has = {
        "text-classification": ranked | {"accuracy", "weighted-f1"},
        "multi-label-classification": ranked | {"micro-f1", "sample-f1", "subset-accuracy"},
        "text-regression": {"loss", "rmse", "mae", "pearson", "spearman"},
        "causal-lm": {"loss", "perplexity"},
        "image-classification": {"loss", "accuracy", "top-5-accuracy", "macro-f1"},
        "token-classification": {"loss", "f1", "precision", "recall", "macro-f1", "accuracy"},
        "masked-lm": {"loss", "perplexity", "accuracy"},
        "question-answering": {"loss", "answer-f1", "exact-match"},
    }
    given = spec(task, evaluation={"metric": metric})
    if metric in has[task]:
        assert parse(Spec, given).evaluation.metric == metric
    else:
        with pytest.raises(FieldError, match=f"{task} has loss"):
            parse(Spec, given)


def test_the_columns_tell_the_task() -> None:
    assert task_reading(["text", "label"]).name == "text-classification"
    assert task_reading(["text", "textPair", "label"]).name == "text-classification"
    assert task_reading(["image", "label"]).name == "image-classification"
    assert task_reading(["tokens", "tags"]).name == "token-classification"
    assert task_reading(["text", "spans"]).name == "token-classification"
    assert task_reading(["text", "labels"]).name == "multi-label-classification"
    assert task_reading(["text", "textPair", "labelColumns"]).name == "multi-label-classification"
    assert task_reading(["text", "score"]).name == "text-regression"
    assert task_reading(["messages"]).name == "causal-lm"
    assert task_reading(["prompt", "context", "completion"]).name == "causal-lm"
    assert task_reading(["question", "context", "answers"]).name == "question-answering"
    assert task_reading(["question", "context", "answer", "answerStart"]).name == "question-answering"


def test_a_role_s_usual_names_are_those_of_the_table() -> None:
    assert usual_names("messages") == ("messages", "conversation", "conversations", "chat")
    assert usual_names("tools") == ("tools",)
    assert [usual_names(role.name) for role in TASKS["text-classification"].roles] == [
        role.usual for role in TASKS["text-classification"].roles
    ]


def test_a_method_has_the_settings_of_its_type() -> None:
    assert parse(Method, {"type": "lora", "lora": {"rank": 4}}).settings == Lora(rank=4)
    assert parse(Method, {"type": "freeze", "freeze": {"lastLayers": 2}}).settings == Freeze(last_layers=2)
    assert parse(Method, {"type": "lora"}).settings is None
    assert parse(Method, {}).settings is None


def test_which_way_a_metric_gets_better_is_said_where_its_name_does_not_tell() -> None:
    assert [direction(name) for name in ("loss", "accuracy-low", "new")] == ["", "", ""]
    for name, metric in METRICS.items():
        if name != LOSS:
            assert direction(name) == ("higher is better" if higher_is_better(name) else "lower is better")
            assert higher_is_better(name) == metric.higher_is_better
    assert {name for name in METRICS if not higher_is_better(name)} >= {"loss", "perplexity", "rmse", "mae"}
    assert not higher_is_better("new")


@pytest.mark.parametrize("task", [*TASKS.values()], ids=lambda task: task.name)
def test_a_task_says_which_families_fit(task: TaskInfo) -> None:
    assert task.families
    assert set(task.kinds) <= {ENCODER, DECODER, VISION}
    assert set(task.unfit) <= {family.model_type for family in of_kinds(task.kinds)}
    assert not {family.model_type for family in task.families} & set(task.unfit)


def test_families_are_told_apart_by_their_names_too() -> None:
    assert len({family.name for family in FAMILIES.values()}) == len(FAMILIES)
    assert {name.count("/") for name in (family.example for family in FAMILIES.values())} == {1}
    assert [family.name for family in of_kinds([DECODER], but=["llama", "gpt2", "mistral"])] == [
        "Qwen2",
        "Qwen3",
        "Gemma 3",
    ]


def test_a_method_is_claimed_for_families_by_the_table() -> None:
    prefix, texts = METHODS["prefix-tuning"], TASKS["text-classification"]
    assert not prefix.takes(texts, "roberta")
    assert prefix.takes(TASKS["token-classification"], "roberta")
    assert prefix.families(TASKS["masked-lm"]) == ()
    assert [family.model_type for family in METHODS["ia3"].families(TASKS["image-classification"])] == [
        "vit",
        "deit",
        "swin",
    ]
    assert "prefix-tuning" in methods_for(texts, "bert")
    assert "prefix-tuning" not in methods_for(texts, "roberta")
    assert "prefix-tuning" not in methods_for(texts), "not with every family"
    assert "features" in methods_for(texts)
    for method in METHODS.values():
        types = {(answer, model_type) for answer, model_type in method.unfit}
        assert types <= {(task.answer, family.model_type) for task in TASKS.values() for family in task.families}
        assert {answer for answer, _ in types} <= set(method.suits or {task.answer for task in TASKS.values()})
    assert {method.name for method in METHODS.values() if method.universal} == {"full", "freeze", "lora"}
