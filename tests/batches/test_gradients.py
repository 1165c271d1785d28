"""I1: the gradient of any split of a batch over micro-batches and ranks equals that of the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch

from finetune_api.tuning import Method, Training
from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import Example
from finetune_trainer.batches.group_example import GroupExample
from finetune_trainer.batches.image_example import ImageExample
from finetune_trainer.batches.layout import micro_batches
from finetune_trainer.batches.rank_batch import RankBatch, lay_out
from finetune_trainer.distributed.ddp import DdpGradients
from finetune_trainer.distributed.flat import FlatGradients
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.methods import method_for
from finetune_trainer.model.load import load_model
from finetune_trainer.model.pooled import PooledModel
from finetune_trainer.model.pooling import Pooled
from finetune_trainer.model.units import answer_in_units
from finetune_trainer.objectives.base import Objective
from finetune_trainer.objectives.likeness import likeness
from finetune_trainer.optimizers import optimizer_for
from finetune_trainer.stream.companions import Companions
from finetune_trainer.stream.profile import Spread
from finetune_trainer.tasks.base import Draw, JobFacts
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train.step import Stepped, train_step
from support import entities, image_families
from support.families import masked_bert
from support.image_families import encoded, picture, tiny_resnet
from support.models import chats, mails, questions, scored, topics
from support.ranks import run_ranks

LABELS, COLOURS = ("ham", "spam"), tuple(image_families.COLOURS)
TOPICS = ("ham", "spam", "short")
OUTPUTS = {
    "image-classification": COLOURS,
    "token-classification": entities.LABELS,
    "multi-label-classification": TOPICS,
}
COMPARED = "rows compared"
COMPARES = Method(type="setfit")
ROWS = 13
OWN_ROWS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "text-classification": mails,
    "multi-label-classification": topics,
    "text-regression": scored,
    "causal-lm": chats,
    "masked-lm": mails,
    "question-answering": partial(questions, words=(60, 150)),  # rows of several windows: losses are fractions
    "token-classification": partial(entities.tagged, words=(6, 120)),  # some in two windows
}


SPREAD = Spread(1.0, 5.0, 3.0, 1.2)
"""Of the numbers to be learned, about."""


def full_precision_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """Llama's norm computes in float32 whatever it is given; the bound below needs more."""
    return norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


def images(count: int) -> list[dict[str, Any]]:
    return [{"image": encoded(picture(COLOURS[n % 3], n)), "label": COLOURS[n % 3]} for n in range(count)]


def in_dtype(example: Example, dtype: torch.dtype) -> Example:
    """With pixels as exact as the model is here."""
    if not isinstance(example, ImageExample) or dtype is not torch.float64:
        return example
    plain = example.values
    return dataclasses.replace(example, values=lambda pixels: plain(pixels).astype("float64"))


def grouped(examples: list[Example]) -> list[Example]:
    """Each with others of its class and of another, of unequal lengths."""
    companions = Companions([int(example.labels(0)) for example in examples])
    groups = [companions.group(n, Draw(row=n).generator()) for n in range(len(examples))]
    return [
        GroupExample(tuple(examples[n] for n in rows), tuple(int(examples[n].labels(0)) for n in rows))
        for rows in groups
    ]


def model_and_examples(task: str, folder: Path, dtype: torch.dtype) -> tuple[Any, list[Example]]:
    if task == COMPARED:
        model, examples = model_and_examples("text-classification", folder, dtype)
        compared = PooledModel(model.base_model, Pooled()).to(dtype)
        return method_for(COMPARES).apply(compared, None, task_for("text-classification").head, 0), grouped(examples)
    t = task_for(task)
    tokenizer = t.processor.load(folder, None)
    labels = OUTPUTS.get(task, LABELS) if t.info.labels else None
    model = load_model(folder, t.head, labels=labels, seed=1, pad_id=tokenizer.pad_id).to(dtype)
    if t.number is not None:
        assert answer_in_units(model, folder, SPREAD.mean, SPREAD.deviation)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if dtype is torch.float64 and type(module).__name__ == "LlamaRMSNorm":
            module.forward = MethodType(full_precision_norm, module)
    rows = images(ROWS) if t.file_roles else OWN_ROWS[task](ROWS, seed=5)
    facts = JobFacts(t.columns(list(rows[0]), None), labels or (), settings=t.defaults)
    examples = [e for row in rows for e in t.encode(row, facts, tokenizer, 96, Draw())]
    return model, [in_dtype(example, dtype) for example in examples]


def objective(task: str) -> Objective:
    """With all that it may be asked for: smoothed targets, and classes that weigh differently, where they may."""
    if task == COMPARED:
        return likeness
    info = task_for(task).info
    if not info.class_weights:
        facts = JobFacts({}, training=Training(label_smoothing=0.1), spread=SPREAD)
        return task_for(task).objective(facts)
    labels, counts = (LABELS, (9, 4)) if info.exclusive else (TOPICS, (6, 5, 0))
    training = Training(label_smoothing=0.1, class_weights="balanced")
    return task_for(task).objective(JobFacts({}, labels, counts, training=training, rows=ROWS))


def trained(model: Any) -> list[Any]:
    return [p for p in model.parameters() if p.requires_grad]


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1).clone() for p in trained(model)])


def whole(task: str, model: Any, examples: list[Example]) -> torch.Tensor:
    """The gradient of the mean over everything learned, by one plain pass."""
    batch = collate(examples, 0, 96)
    loss = objective(task)(model, batch).total / sum(e.losses for e in examples)
    model.zero_grad(set_to_none=True)
    loss.backward()
    return gradient(model)


def share(examples: list[Example], rank: int, size: int, micro: int) -> RankBatch:
    return lay_out([[example] for example in examples[rank::size]], micro, 0, 96)


class Frozen(torch.optim.SGD):
    """Leaves the weights alone, so that the gradient can be looked at."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        return None


def split_gradient(
    ranks: Ranks,
    task: str,
    folder: Path,
    dtype: torch.dtype,
    micro: int,
    kind: Any = FlatGradients,
    rows: int | None = None,
) -> tuple[torch.Tensor, Stepped]:
    model, examples = model_and_examples(task, folder, dtype)
    gradients = kind(model, ranks)
    mine = share(examples[:rows], ranks.rank, ranks.size, micro)
    done = train_step(
        gradients,
        objective(task),
        Frozen(model.parameters(), lr=0.0),
        mine,
        ranks,
        step=1,
        rate=0.0,
        max_norm=0.0,
        seed=0,
        stop=lambda: False,
    )
    assert done is not None
    return gradient(model), done


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def alone() -> Ranks:
    return Ranks.alone()


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> tuple[str, Path]:
    task = request.param
    return task, request.getfixturevalue(MODELS[task])


@pytest.fixture(scope="session")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT that fills gaps."""
    return masked_bert(tmp_path_factory.mktemp("gaps"))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny ResNet, whose norms would look at the rows beside a row if they were let."""
    return tiny_resnet(tmp_path_factory.mktemp("resnet"))


MODELS = dict.fromkeys([*OWN_ROWS, COMPARED], "bert") | {
    "causal-lm": "llama",
    "masked-lm": "gaps",
    "image-classification": "resnet",
}
TASKS = pytest.mark.parametrize("folder", MODELS, indirect=True)


@TASKS
@pytest.mark.parametrize("micro", [1, 3, 4, 13])
def test_micro_batches_of_any_size_add_up_to_the_whole(folder: tuple[str, Path], micro: int) -> None:
    task, path = folder
    expected = whole(task, *model_and_examples(task, path, torch.float64))
    found, done = split_gradient(alone(), task, path, torch.float64, micro)
    assert error(found, expected) <= 1e-10
    assert done.norm == pytest.approx(float(expected.norm()), rel=1e-10)


@TASKS
def test_single_precision_stays_within_rounding(folder: tuple[str, Path]) -> None:
    task, path = folder
    model, examples = model_and_examples(task, path, torch.float32)
    expected = whole(task, model, examples)
    found, _ = split_gradient(alone(), task, path, torch.float32, 3)
    assert error(found, expected) <= 1e-5
    sizes = [p.numel() for p in trained(model)]
    for g, e in zip(found.split(sizes), expected.split(sizes), strict=True):
        assert (g - e).norm() <= 1e-5 * max(e.norm(), 1e-3 * expected.norm())


@TASKS
@pytest.mark.parametrize(("size", "micro"), [(2, 4), (3, 2)])
def test_ranks_add_up_to_the_whole(folder: tuple[str, Path], size: int, micro: int) -> None:
    task, path = folder
    expected = whole(task, *model_and_examples(task, path, torch.float64))
    results = run_ranks(size, split_gradient, task, path, torch.float64, micro)
    for found, done in results:
        assert error(found, expected) <= 1e-10
        assert done == results[0][1]
        assert torch.equal(found, results[0][0])


def test_the_windows_of_a_row_weigh_one_together(bert: Path) -> None:
    _, examples = model_and_examples("question-answering", bert, torch.float64)
    assert len(examples) > 2 * ROWS
    assert sum(e.losses for e in examples) == pytest.approx(ROWS)
    assert {round(1 / e.losses) for e in examples} >= {1, 2, 3}


def test_a_rank_without_rows_takes_part(bert: Path) -> None:
    """Two rows on three ranks."""
    model, examples = model_and_examples("text-classification", bert, torch.float64)
    expected = whole("text-classification", model, examples[:2])
    for found, _ in run_ranks(3, split_gradient, "text-classification", bert, torch.float64, 4, FlatGradients, 2):
        assert error(found, expected) <= 1e-10


@pytest.mark.parametrize("rows", [ROWS, 1])
def test_ddp_by_accelerate_gives_the_same_gradient(bert: Path, rows: int) -> None:
    """The way for accelerators, tried on CPUs: unequal numbers of micro-batches, and a rank without rows."""
    model, examples = model_and_examples("text-classification", bert, torch.float64)
    expected = whole("text-classification", model, examples[:rows])
    for result in run_ranks(2, split_gradient, "text-classification", bert, torch.float64, 2, DdpGradients, rows):
        assert result[0] != "raised", result[2]
        assert error(result[0], expected) <= 1e-10


def test_a_mean_of_means_would_be_noticed(llama: Path) -> None:
    """Planted fault: what the tests above must tell apart is far beyond their bound."""
    model, examples = model_and_examples("causal-lm", llama, torch.float64)
    expected = whole("causal-lm", model, examples)
    model.zero_grad()
    batches = list(micro_batches(examples, 4, 0, 96))
    for batch in batches:
        learned = int((batch.labels[:, 1:] != -100).sum())
        (objective("causal-lm")(model, batch).total / learned / len(batches)).backward()
    assert error(torch.cat([p.grad.reshape(-1) for p in model.parameters()]), expected) > 1e-3


def stop_on_one(ranks: Ranks, folder: Path) -> tuple[bool, bool]:
    """Rank 1 is told to stop in the midst of its micro-batches."""
    model, examples = model_and_examples("text-classification", folder, torch.float32)
    before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
    calls = iter([False, ranks.rank == 1] + [False] * 20)
    done = train_step(
        FlatGradients(model, ranks),
        objective("text-classification"),
        optimizer_for(model, Training()),
        share(examples, ranks.rank, ranks.size, 2),
        ranks,
        step=1,
        rate=1e-2,
        max_norm=1.0,
        seed=0,
        stop=lambda: next(calls),
    )
    return done is None, torch.equal(before, torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


def test_a_stop_on_one_rank_stops_all_and_changes_nothing(bert: Path) -> None:
    assert run_ranks(2, stop_on_one, bert) == [(True, True), (True, True)]
