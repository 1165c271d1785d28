"""Each optimizer makes the update of its paper's formula, decays matrices only, and goes on from a checkpoint bit for
bit (I3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import JobError, Reason
from finetune_api.optimizers import OPTIMIZERS
from finetune_api.tuning import Training
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.rank_batch import RankBatch
from finetune_trainer.checkpoint.compare import check_identity
from finetune_trainer.distributed import tensors as named
from finetune_trainer.distributed.flat import FlatGradients
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.methods.modules import depths
from finetune_trainer.model.load import load_model
from finetune_trainer.objectives.base import Losses
from finetune_trainer.optimizers import optimizer_for
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train.step import train_step
from support.attempts import Bench
from support.models import mails, write_jsonl

RATE, DECAY = 0.1, 0.01
GRADIENTS = ([[0.5, -2.0, 1.0], [0.25, 4.0, -1.0]], [[-0.1, -1.0, 3.0], [0.5, -0.5, 0.0]])


def updated(optimizer: str, **training: Any) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """The weights before, after two updates by GRADIENTS, and the gradients."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    before = model.weight.detach().clone()
    made = optimizer_for(model, Training(optimizer=optimizer, weight_decay=DECAY, **training))
    gradients = [torch.tensor(g, dtype=torch.float64) for g in GRADIENTS]
    for gradient in gradients:
        model.weight.grad, model.bias.grad = gradient.clone(), torch.zeros(2, dtype=torch.float64)
        for group in made.param_groups:
            group["lr"] = RATE
        made.step()
    return before, model.weight.detach(), gradients


@pytest.mark.parametrize("beta2", [None, 0.95])
def test_adamw(beta2: float | None) -> None:
    w, found, gradients = updated("adamw", beta2=beta2)
    b1, b2 = 0.9, beta2 or 0.999
    m = v = torch.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w * (1 - RATE * DECAY) - RATE * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)
    assert torch.allclose(found, w, rtol=1e-12)


def test_lion() -> None:
    w, found, gradients = updated("lion", beta1=0.8)
    m = torch.zeros_like(w)
    for g in gradients:
        w = w - RATE * (torch.sign(0.8 * m + 0.2 * g) + DECAY * w)
        m = 0.99 * m + 0.01 * g
    assert torch.allclose(found, w, rtol=1e-12)
    assert GRADIENTS[1][1][2] == 0.0, "there the running mean alone decides"


def test_adafactor() -> None:
    """Algorithm 5 of Shazeer & Stern with the schedule's rate: factored second moments, updates clipped to 1."""
    w, found, gradients = updated("adafactor")
    rows, columns = torch.zeros(2), torch.zeros(3)
    for t, g in enumerate(gradients, 1):
        b2, squares = 1 - t**-0.8, g * g + 1e-30
        rows, columns = b2 * rows + (1 - b2) * squares.sum(1), b2 * columns + (1 - b2) * squares.sum(0)
        update = g / (torch.outer(rows, columns) / rows.sum()).sqrt()
        update = update / max(1.0, float(update.square().mean().sqrt()))
        w = w * (1 - RATE * DECAY) - RATE * update
    assert torch.allclose(found, w, rtol=1e-6)


def test_sgd() -> None:
    w, found, (first, second) = updated("sgd", beta1=0.5)
    m = first + DECAY * w
    w = w - RATE * m
    m = 0.5 * m + second + DECAY * w
    assert torch.allclose(found, w - RATE * m, rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_is_for_matrices_only(bert: Path, optimizer: str) -> None:
    model = load_model(bert, task_for("text-classification").head, labels=("ham", "spam"), seed=0, pad_id=0)
    decayed, plain = optimizer_for(model, Training(optimizer=optimizer, weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert all(p.dim() > 1 for p in decayed["params"])
    assert all(p.dim() <= 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_comes_back_as_it_was(optimizer: str) -> None:
    """Also numbers and scalars: whoever takes it over makes the same next update."""

    def made() -> tuple[Any, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, optimizer_for(model, Training(optimizer=optimizer))

    def step(model: Any, optimizer: torch.optim.Optimizer, seed: int) -> None:
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
        for group in optimizer.param_groups:
            group["lr"] = RATE
        optimizer.step()

    model, first = made()
    for seed in range(3):
        step(model, first, seed)
    stored = {k: v.clone() for k, v in {**named.of_model(model), **named.of_optimizer(model, first)}.items()}
    other, second = made()
    named.into_model(other, stored)
    named.into_optimizer(other, second, stored)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert {k: type(v) for k, v in first.state[p].items()} == {k: type(v) for k, v in second.state[q].items()}
    step(model, first, 9)
    step(other, second, 9)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


class StopAfter:
    """A stop that comes at the call of that number."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": "adamw", "schedule": "cosine-restarts", "scheduleCycles": 2},
        {"optimizer": "adafactor", "schedule": "wsd", "decayRatio": 0.4},
        {"optimizer": "lion", "schedule": "inverse-sqrt"},
        {"optimizer": "sgd", "schedule": "constant"},
        {"layerDecay": 0.5, "emaDecay": 0.6, "labelSmoothing": 0.1, "dropout": 0.3},
    ],
    ids=lambda training: " ".join(map(str, training.values())),
)
def test_a_stopped_run_ends_like_one_that_was_not(bert: Path, tmp_path: Path, training: dict[str, Any]) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1))
    common = {"maxSteps": 8, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2, "warmupRatio": 0.25}
    spec = {"model": {"uri": bert.as_uri()}, "data": {"train": {"uri": train.as_uri()}}}
    whole, stopped = (Bench(tmp_path / name, {**spec, "training": common | training}) for name in ("whole", "stopped"))
    whole.prepare()
    whole.attempt()
    stopped.prepare()
    error = stopped.failing(1, StopAfter(14))
    assert error.reason is Reason.INTERRUPTED
    assert stopped.attempt(2).resumed_from_step in range(2, 7), "stopped at another place than the case is about"
    assert stopped.events() == whole.events()
    assert stopped.weights() == whole.weights()


def test_each_layers_rate_is_that_of_the_layer_above_times_the_decay(bert: Path) -> None:
    model = load_model(bert, task_for("text-classification").head, labels=("ham", "spam"), seed=0, pad_id=0)
    training = Training(layer_decay=0.5, weight_decay=0.1)
    groups = optimizer_for(model, training, depths(model, task_for("text-classification").head)).param_groups
    share = {id(p): group["share"] for group in groups for p in group["params"]}
    decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    found: dict[str, set[float]] = {}
    for name, p in model.named_parameters():
        part = next(part for part in ("embeddings", "layer.0", "layer.1", "pooler", "classifier") if part in name)
        found.setdefault(part, set()).add(share[id(p)])
        assert decayed[id(p)] == (0.1 if p.dim() > 1 else 0.0)
    assert found == {"classifier": {1.0}, "pooler": {1.0}, "layer.1": {0.5}, "layer.0": {0.25}, "embeddings": {0.125}}
    assert len(share) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_step_gives_each_group_its_share_of_the_rate() -> None:
    """Lion's first update of a weight is its rate, whatever the gradient."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    deep = {name: int(name[0]) for name, _ in model.named_parameters()}
    training = Training(optimizer="lion", layer_decay=0.25, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    batch = MicroBatch({}, torch.zeros(1), 1, 1)
    objective = lambda model, batch: Losses(model(torch.ones(1, 2)).sum()[None], torch.ones(1))  # noqa: E731
    done = train_step(
        FlatGradients(model, Ranks.alone()),
        objective,
        optimizer_for(model, training, deep),
        RankBatch([batch], 1, 1),
        Ranks.alone(),
        step=1,
        rate=0.1,
        max_norm=0.0,
        seed=0,
        stop=lambda: False,
    )
    assert done is not None
    moved = [float((p.detach() - b).abs().max()) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.025, 0.025, 0.1, 0.1], rel=1e-5)


def test_a_checkpoint_of_another_optimizer_is_refused() -> None:
    with pytest.raises(JobError, match=r"spec\.training\.optimizer is 'lion', the checkpoint's is 'adamw'"):
        check_identity("s3://b/ckpt/1/2", {}, {"optimizer": "lion"}, None)
    check_identity("s3://b/ckpt/1/2", {}, {"optimizer": "adamw"}, None)
