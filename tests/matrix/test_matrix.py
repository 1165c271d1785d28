"""Every task with every family that it claims by every method: it learns, is written, is loaded by plain transformers
and peft, answers as before, and goes on from a kill as if nothing had happened (I3).

`make test` runs the cells of `cells.short`; `make matrix` all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from finetune_api.exits import JobError, Reason
from finetune_api.families import DECODER, ENCODER, FAMILIES, VISION
from finetune_api.method import METHODS, MethodInfo, methods_for
from finetune_api.report import Stage
from finetune_api.tasks import TASKS
from finetune_api.tuning import Method
from finetune_trainer.methods import METHODS as OURS
from finetune_trainer.methods import apply_method
from finetune_trainer.model.load import load_model
from finetune_trainer.output.verify import Probe
from finetune_trainer.prepare import prepare
from finetune_trainer.report.reporter import Reporter
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train import result
from matrix import rows
from matrix.cells import Cell, cells, refused, short, unclaimed
from support import cards
from support.attempts import Bench
from support.zoo import BARE, folder_of

STEPS = 48
TRAINED = {ENCODER: "AutoModelForMaskedLM", DECODER: "AutoModelForCausalLM", VISION: "AutoModelForImageClassification"}
"""As whole as a model of the kind is found."""
CLAIMED = cells()
CHOSEN = CLAIMED if os.environ.get("FULL") else short(CLAIMED)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The training rows of each task."""
    folder = tmp_path_factory.mktemp("rows")
    return {task: rows.write(folder, task, 96, 1) for task in TASKS}


def base_of(cell: Cell) -> Path:
    """A base as it is usually found: bare where the head is new, else with the head."""
    head = task_for(cell.task).head
    return folder_of(cell.family, BARE if head.is_new else head.auto_class)


def rate_of(method: MethodInfo) -> float:
    """For every weight, for a few, or for hardly any."""
    return 5e-3 if method.by_width else 2e-1 if method.slight else 1e-2


def bench(cell: Cell, folder: Path, uri: str, base: Path | None = None) -> Bench:
    return Bench(
        folder,
        {
            "task": cell.task,
            "model": {"uri": (base or base_of(cell)).as_uri()},
            "data": {"train": {"uri": uri}, "validation": {"fraction": 0.15}},
            "method": {"type": cell.method},
            "training": {
                "maxSteps": STEPS,
                "globalBatchSize": 16,
                "microBatchSize": 8,
                "learningRate": rate_of(METHODS[cell.method]),
            },
            "evaluation": {"everySteps": STEPS},
            "checkpoints": {"everySteps": STEPS},
            "output": {"uri": (folder / "out").as_uri()},
        },
    )


@contextlib.contextmanager
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Probe, list[torch.Tensor]]]]:
    """What the tuned model says to a few rows just before it is written."""
    seen: list[tuple[Probe, list[torch.Tensor]]] = []
    write = result.write_model

    def listening(folder: Path, model: Any, source: Path, probe: Probe, **more: Any) -> None:
        seen.append((probe, probe.logits(model)))
        write(folder, model, source, probe, **more)

    with monkeypatch.context() as patch:
        patch.setattr(result, "write_model", listening)
        yield seen


def said_plainly(cell: Cell, out: Path, probe: Probe) -> list[torch.Tensor]:
    """What the output answers by what a user would write: an Auto class, and peft for an adapter; the card's code for a
    head of our own."""
    if METHODS[cell.method].pools:
        return cards.logits_of(cards.model_of(out), probe.rows)
    plain = loaded_plainly(cell, out).eval()
    if OURS[cell.method].extra_positions(OURS[cell.method].defaults) and task_for(cell.task).head.writes:
        at_their_own_tokens(plain)
    return probe.logits(plain)


def at_their_own_tokens(model: Any) -> None:
    """Plain peft answers for virtual tokens, too, that stand before a row's."""
    plain = model.forward

    def forward(input_ids: torch.Tensor) -> Any:
        output = plain(input_ids=input_ids)
        output.logits = output.logits[:, -input_ids.shape[1] :]
        return output

    model.forward = forward


def loaded_plainly(cell: Cell, out: Path) -> Any:
    """By transformers and peft alone."""
    import transformers

    auto = getattr(transformers, task_for(cell.task).head.auto_class)
    if OURS[cell.method].adapter is None:
        return auto.from_pretrained(out)
    from peft import PeftModel

    labels = json.loads((out / "task.json").read_text())["labels"]
    outputs = task_for(cell.task).head.config(labels).get("num_labels")
    more = {"num_labels": outputs} if outputs else {}
    return PeftModel.from_pretrained(auto.from_pretrained(base_of(cell), **more), str(out))


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
def test_a_cell(cell: Cell, data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = (bench(cell, tmp_path / name, data[cell.task]) for name in ("whole", "broken"))
    whole.prepare()
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    with answers(monkeypatch) as said:
        whole.attempt()
    losses = [event["loss"] for event in whole.events("step")]
    if METHODS[cell.method].slight:  # it comes soon to the little that it can do
        assert sum(losses[-6:]) / 6 < 0.99 * max(losses[:6]), losses
    else:
        assert sum(losses[-6:]) < 0.95 * sum(losses[:6]), losses

    ((probe, ours),) = said
    for mine, theirs in zip(ours, said_plainly(cell, tmp_path / "whole" / "out", probe), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5, rtol=1e-5)

    steps: list[Any] = []
    counting = register_optimizer_step_post_hook(lambda *step: steps.append(step))
    error = broken.failing(1, stop=lambda: len(steps) >= STEPS // 2)
    counting.remove()
    assert error.reason is Reason.INTERRUPTED
    assert broken.attempt(2).resumed_from_step == STEPS // 2
    assert broken.events("step") == whole.events("step")
    files = {path.name for path in (tmp_path / "whole" / "out").glob("*.safetensors")}
    assert files
    for name in files:
        assert broken.weights(name) == whole.weights(name)


def test_a_method_that_does_not_fit_the_family_is_refused_by_naming_those_that_do(
    data: dict[str, str], tmp_path: Path
) -> None:
    kinds: set[tuple[str, str]] = set()
    for cell in refused():
        kind = (cell.method, cell.family if os.environ.get("FULL") else "")
        if kind in kinds:
            continue  # the tasks of one kind are alike
        kinds.add(kind)
        folder = tmp_path / str(cell)
        folder.mkdir()
        config = bench(cell, folder, data[cell.task]).config()
        reporter = Reporter(config, stage=Stage.PREPARING)
        with pytest.raises(JobError) as caught:
            prepare(config, reporter)
        reporter.close(final=False)
        error = caught.value
        assert error.reason is Reason.INVALID_CONFIG, str(cell)
        assert error.field.startswith("spec.method"), str(cell)
        fits = methods_for(TASKS[cell.task], cell.family)
        assert cell.method not in fits
        assert all(name in error.hint for name in fits), (str(cell), error.hint)


@pytest.mark.skipif(not os.environ.get("FULL"), reason="a hundred models are built")
def test_slight_methods_are_put_on_every_family_that_the_tables_say() -> None:
    for task, method in itertools.product(TASKS.values(), METHODS.values()):
        for family in method.families(task) if method.slight else ():
            cell, head = Cell(task.name, family.model_type, method.name), task_for(task.name).head
            model = load_model(base_of(cell), head, labels=("a", "b") if task.labels else None, seed=0, pad_id=0)
            OURS[method.name].check(model, OURS[method.name].defaults, head)
            tuned = apply_method(model, Method(type=method.name), head, 0)
            assert any(weight.requires_grad for weight in tuned.parameters()), cell


def test_the_short_form_leaves_out_no_task_family_or_method() -> None:
    chosen = short(CLAIMED)
    assert {cell.task for cell in chosen} == set(TASKS)
    assert {cell.family for cell in chosen} == {
        family.model_type for task in TASKS.values() for family in task.families
    }
    assert {cell.method for cell in chosen} == set(METHODS)
    assert len(chosen) < 2 * len(FAMILIES), "it stays short"


def test_what_a_task_does_not_claim_is_refused_in_the_prepare_step_by_naming_what_fits(
    data: dict[str, str], tmp_path: Path
) -> None:
    for task, family in unclaimed():
        cell = Cell(task, family, "full")
        folder = tmp_path / f"{task}-{family}"
        folder.mkdir()
        config = bench(cell, folder, data[task], folder_of(family, TRAINED[FAMILIES[family].kind])).config()
        reporter = Reporter(config, stage=Stage.PREPARING)
        with pytest.raises(JobError) as caught:
            prepare(config, reporter)
        reporter.close(final=False)
        error = caught.value
        assert (error.reason, error.field) == (Reason.UNSUPPORTED_MODEL, "spec.model.uri"), str(cell)
        fits = [found.name for found in TASKS[task].families]
        assert all(name in error.hint for name in fits), (str(cell), error.hint)
