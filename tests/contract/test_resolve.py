"""What is chosen where the spec leaves a choice: from the rows and the model, the same for everyone who asks."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.method import METHODS
from finetune_api.metrics import higher_is_better
from finetune_api.optimizers import OPTIMIZERS
from finetune_api.resolve import resolve
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config
from finetune_api.status import Resolved
from finetune_api.tasks import TASKS


def config(task: str = "text-classification", world: World | None = None, **spec: Any) -> RunConfig:
    given_spec = {
        "task": task,
        "model": {"uri": "s3://m/a"},
        "data": {"train": {"uri": "s3://d/a"}, "validation": {"fraction": 0.1}},
        "output": {"uri": "s3://o/a"},
        **spec,
    }
    identity = Identity(name="a/b", id="1")
    return run_config(
        parse(Spec, given_spec),
        job=identity,
        attempt=1,
        world=world or World(),
        storage=StorageAccess(),
        hub=HubAccess(),
        reporting=Reporting(),
    )


def chosen(
    rows: int = 3200,
    *,
    model_max: int = 512,
    longest: int = 400,
    p99: int = 250,
    task: str = "text-classification",
    world: World | None = None,
    width: int | None = None,
    rounds: tuple[int, ...] = (),
    **spec: Any,
) -> Resolved:
    return resolve(
        config(task, world, **spec),
        train_rows=rows,
        model_max_length=model_max,
        longest_row=longest,
        p99_length=p99,
        width=width,
        rounds=rounds,
    )


def test_three_epochs_of_32_rows_a_step() -> None:
    got = chosen()
    assert (got.epochs, got.global_batch_size, got.total_steps, got.micro_batch_size) == (3.0, 32, 300, 8)
    assert got.evaluate_every_steps == 100


def test_the_rounds_of_folds_count_as_steps_and_change_nothing_else() -> None:
    plain, folded = chosen(rows=320), chosen(rows=320, rounds=(256, 255))
    assert folded == plain.model_copy(update={"total_steps": 30 + 24 + 24})
    assert chosen(rows=320, rounds=(256, 64), training={"maxSteps": 25}).total_steps == 25 + 25 + 25
    assert chosen(rows=320, rounds=(256, 64), training={"maxSteps": 25, "epochs": 3}).total_steps == 25 + 24 + 6


def test_what_the_user_gave_is_kept() -> None:
    training = {
        "epochs": 1.5,
        "globalBatchSize": 10,
        "microBatchSize": 3,
        "learningRate": 1e-3,
        "warmupRatio": 0.5,
        "maxLength": 64,
    }
    got = chosen(100, training=training, evaluation={"everySteps": 4, "metric": "accuracy"})
    assert got.to_json() == {
        "epochs": 1.5,
        "totalSteps": 15,
        "globalBatchSize": 10,
        "microBatchSize": 3,
        "learningRate": 1e-3,
        "warmupSteps": 8,
        "maxLength": 64,
        "metric": "accuracy",
        "evaluateEverySteps": 4,
    }


def test_max_steps_ends_earlier_and_never_later() -> None:
    assert chosen(training={"maxSteps": 7}).total_steps == 7
    assert chosen(training={"maxSteps": 7, "epochs": 3}).total_steps == 7
    assert chosen(training={"maxSteps": 7000, "epochs": 3}).total_steps == 300
    assert chosen(training={"maxSteps": 250}).epochs == 2.5


def test_small_data_get_small_batches() -> None:
    assert [chosen(rows).global_batch_size for rows in (1, 10, 50, 100, 200, 400, 10_000)] == [4, 4, 4, 8, 16, 32, 32]
    assert chosen(10, training={"microBatchSize": 16}).global_batch_size == 16


def test_a_micro_batch_is_no_larger_than_a_process_s_share() -> None:
    world = World(workers=4, processes_per_worker=4)
    assert chosen(world=world).micro_batch_size == 2
    assert chosen(world=world, training={"microBatchSize": 32}).micro_batch_size == 2


@pytest.mark.parametrize(
    ("longest", "p99", "model_max", "expected"),
    [
        (100, 90, 512, 100),
        (128, 60, 512, 128),
        (400, 250, 512, 256),
        (4000, 3000, 8192, 512),
        (400, 250, 200, 200),
        (3, 3, 512, 8),
    ],
)
def test_lengths_follow_the_rows_and_the_model(longest: int, p99: int, model_max: int, expected: int) -> None:
    assert chosen(longest=longest, p99=p99, model_max=model_max).max_length == expected


def test_language_models_may_read_more() -> None:
    assert chosen(task="causal-lm", longest=9000, p99=5000, model_max=8192).max_length == 2048


RATES = {
    ("text-classification", "full"): 5e-5,
    ("text-classification", "freeze"): 1e-3,
    ("text-classification", "lora"): 5e-4,
    ("multi-label-classification", "full"): 5e-5,
    ("multi-label-classification", "freeze"): 1e-3,
    ("multi-label-classification", "lora"): 5e-4,
    ("text-regression", "full"): 5e-5,
    ("text-regression", "freeze"): 1e-3,
    ("text-regression", "lora"): 5e-4,
    ("causal-lm", "full"): 2e-5,
    ("causal-lm", "freeze"): 5e-5,
    ("causal-lm", "lora"): 2e-4,
    ("masked-lm", "full"): 5e-5,
    ("masked-lm", "freeze"): 1.25e-4,
    ("masked-lm", "lora"): 5e-4,
    ("question-answering", "full"): 5e-5,
    ("question-answering", "freeze"): 1e-3,
    ("question-answering", "lora"): 5e-4,
    ("image-classification", "full"): 5e-5,
    ("image-classification", "freeze"): 1e-3,
    ("image-classification", "lora"): 5e-4,
    ("token-classification", "full"): 5e-5,
    ("token-classification", "freeze"): 1e-3,
    ("token-classification", "lora"): 5e-4,
    ("text-classification", "features"): 1e-2,
    ("multi-label-classification", "features"): 1e-2,
    ("text-regression", "features"): 1e-2,
    ("image-classification", "features"): 1e-2,
    ("text-classification", "ia3"): 0.003,
    ("text-classification", "prompt-tuning"): 0.005,
    ("text-classification", "prefix-tuning"): 0.005,
    ("causal-lm", "ia3"): 0.0012,
    ("causal-lm", "prompt-tuning"): 0.01,
    ("causal-lm", "prefix-tuning"): 0.005,
    ("masked-lm", "ia3"): 0.003,
    ("question-answering", "ia3"): 0.003,
    ("image-classification", "ia3"): 0.003,
    ("token-classification", "ia3"): 0.003,
    ("token-classification", "prefix-tuning"): 0.005,
    ("text-classification", "setfit"): 5e-5,
    ("multi-label-classification", "ia3"): 0.003,
    ("multi-label-classification", "prompt-tuning"): 0.005,
    ("multi-label-classification", "prefix-tuning"): 0.005,
    ("text-regression", "ia3"): 0.003,
    ("text-regression", "prompt-tuning"): 0.005,
    ("text-regression", "prefix-tuning"): 0.005,
}


@pytest.mark.parametrize(("task", "method"), RATES)
def test_each_task_and_method_has_a_rate(task: str, method: str) -> None:
    assert chosen(task=task, method={"type": method}).learning_rate == pytest.approx(RATES[task, method])


def test_wide_models_take_a_lower_rate_where_every_weight_is_tuned() -> None:
    widths = (None, 384, 768, 1024, 3072, 100_000)
    found = [chosen(width=width).learning_rate for width in widths]
    assert found == pytest.approx([5e-5, 5e-5, 5e-5, 5e-5 * math.sqrt(0.75), 2.5e-5, 1.25e-5])
    assert chosen(method={"type": "lora"}, width=3072).learning_rate == 5e-4


def test_the_rule_of_the_rate_is_told_unless_the_user_gave_it() -> None:
    assert chosen(width=384).learning_rate_rule == "5e-05 for classification"
    assert chosen(task="causal-lm", width=3072).learning_rate_rule == "2e-05 for language models × 0.5 for width 3072"
    lora = {"method": {"type": "lora"}, "training": {"optimizer": "lion"}}
    assert chosen(**lora).learning_rate_rule == "5e-05 for classification × 10 for method lora × 0.2 for lion"
    assert chosen(training={"learningRate": 1e-3}).learning_rate_rule is None


def test_a_setting_may_take_a_lower_rate() -> None:
    deep = {"method": {"type": "features", "features": {"head": "mlp"}}}
    assert chosen(**deep).learning_rate == pytest.approx(3e-3)
    assert chosen(**deep).learning_rate_rule == "5e-05 for classification × 200 for method features × 0.3 for head mlp"
    flat = {"method": {"type": "features", "features": {"head": "linear"}}}
    assert chosen(**flat).learning_rate == chosen(method={"type": "features"}).learning_rate == pytest.approx(1e-2)


def test_an_optimizer_has_its_own_factor_on_the_rate() -> None:
    found = {name: chosen(training={"optimizer": name}).learning_rate for name in OPTIMIZERS}
    assert found == pytest.approx({"adamw": 5e-5, "adafactor": 5e-5, "lion": 1e-5, "sgd": 1e-2})
    assert chosen(training={"optimizer": "lion", "learningRate": 3e-4}).learning_rate == 3e-4


def test_a_method_that_takes_more_passes_is_judged_as_often() -> None:
    """Sixteen rows in steps of four; a step of comparisons takes four rows for each."""
    few, plain = chosen(16, method={"type": "setfit"}), chosen(16)
    assert (few.epochs, few.total_steps, few.evaluate_every_steps) == (10, 40, 14)
    assert (plain.epochs, plain.total_steps, plain.evaluate_every_steps) == (3, 12, 4)
    assert (few.micro_batch_size, plain.micro_batch_size) == (8, 4)
    given = chosen(16, method={"type": "setfit"}, training={"epochs": 2}, evaluation={"everyEpochs": 1})
    assert (given.total_steps, given.evaluate_every_steps) == (8, 4)
    assert chosen(16, method={"type": "setfit"}, training={"maxSteps": 5}).total_steps == 5


def test_no_task_or_method_is_without_a_rate() -> None:
    fit = {(name, method.name) for name, task in TASKS.items() for method in METHODS.values() if method.fits(task)}
    assert fit == set(RATES)


def test_the_metric_follows_the_task() -> None:
    assert chosen().metric == "macro-f1"
    assert chosen(task="causal-lm").metric == "loss"
    assert [higher_is_better(m) for m in ("accuracy", "macro-f1", "loss", "perplexity")] == [True, True, False, False]


@given(
    rows=st.integers(1, 10**7),
    epochs=st.floats(0.01, 100),
    batch=st.none() | st.integers(1, 65536),
    workers=st.integers(1, 64),
    ratio=st.floats(0, 1),
    every=st.none() | st.floats(0.01, 10),
)
def test_any_choice_makes_sense(
    rows: int, epochs: float, batch: int | None, workers: int, ratio: float, every: float | None
) -> None:
    training = {"epochs": epochs, "warmupRatio": ratio, **({"globalBatchSize": batch} if batch else {})}
    evaluation = {"everyEpochs": every} if every else {}
    got = chosen(rows, world=World(workers=workers), training=training, evaluation=evaluation)
    assert got.total_steps is not None
    assert got.total_steps >= 1
    assert got.warmup_steps is not None
    assert 0 <= got.warmup_steps <= got.total_steps
    assert got.micro_batch_size is not None
    assert got.global_batch_size is not None
    assert 1 <= got.micro_batch_size <= max(1, math.ceil(got.global_batch_size / workers))
    assert got.evaluate_every_steps is not None
    assert got.evaluate_every_steps >= 1
    assert (got.total_steps - 1) * got.global_batch_size < epochs * (rows + got.global_batch_size)


@pytest.mark.parametrize(("length", "rows"), [(32, 32), (64, 32), (128, 16), (200, 10), (256, 8), (2048, 8)])
def test_more_rows_at_once_where_rows_are_short(length: int, rows: int) -> None:
    training = {"maxLength": length, "globalBatchSize": 64}
    assert chosen(model_max=4096, training=training).micro_batch_size == rows
