"""What is frozen stays as it was, runs without dropout and costs no gradients; layers that open later do so at their
step and no other, through any resumption.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import JobError, Reason
from finetune_api.tuning import Freeze, Method, Unfreeze
from finetune_trainer.methods import apply_method, phases_of
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train import finish, loop, openings
from methods.in_memory import KEPT, NEW, tiny
from support.attempts import Bench
from support.models import mails, write_jsonl

STEPS, EVERY = 9, 3
Make = Callable[..., Bench]


def frozen(model: Any, *, last_step: int = 100, **settings: Any) -> tuple[Any, Any]:
    """The model, and its phases; an epoch has ten steps."""
    method = Method(type="freeze", freeze=Freeze(**settings))
    head = NEW if "Sequence" in type(model).__name__ else KEPT
    apply_method(model, method, head, seed=0)
    return model, phases_of(model, method, head, [(10, last_step)])[0]


def trained(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def bert3() -> Any:
    return tiny("bert", "BertForSequenceClassification").train()


def test_names_and_patterns_are_trained_beside_the_head() -> None:
    model, _ = frozen(bert3(), trainable=("*.bias", "layer.1.output", "word_embeddings"))
    found = trained(model)
    names = {name for name, _ in model.named_parameters()}
    wanted = ("bert.pooler.", "classifier.", "bert.encoder.layer.1.output.", "bert.embeddings.word_embeddings.")
    assert found == {name for name in names if name.endswith(".bias") or name.startswith(wanted)}
    assert "bert.encoder.layer.1.attention.output.dense.weight" not in found


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        ({"trainable": ("*.bais",)}, "spec.method.freeze.trainable", "'*.bais' is the name of no module"),
        ({"trainable": ("word_embedding",)}, "spec.method.freeze.trainable", "word_embeddings"),
        ({"trainable": ("dropout",)}, "spec.method.freeze.trainable", "no module with weights"),
        ({"last_layers": 4}, "spec.method.freeze.lastLayers", "has 3 layers, not 4"),
    ],
)
def test_what_fits_nothing_is_refused_with_names_that_are_like_it(settings: Any, field: str, says: str) -> None:
    with pytest.raises(JobError) as caught:
        frozen(bert3(), **settings)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, field)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_layers_that_share_their_weights_are_trained_together_or_not_at_all() -> None:
    def albert() -> Any:
        return tiny("albert", "AlbertForSequenceClassification")

    for count in (1, 2):
        with pytest.raises(JobError, match="3 layers share their weights: none can be trained without") as caught:
            frozen(albert(), last_layers=count)
        assert (caught.value.field, caught.value.hint) == ("spec.method.freeze.lastLayers", "Set it to 0 or 3.")
    with pytest.raises(JobError, match="share their weights") as caught:
        frozen(albert(), unfreeze=Unfreeze(every_steps=1))
    assert caught.value.field == "spec.method.freeze.unfreeze"
    whole, _ = frozen(albert(), last_layers=3)
    assert any("albert_layer_groups" in name for name in trained(whole))
    head, _ = frozen(albert())
    assert not any("albert_layer_groups" in name for name in trained(head))


def opened_at(phases: Any, model: Any, step: int) -> set[int]:
    """The layers that a step trains."""
    with phases.at(step):
        return {int(name.split(".")[3]) for name in trained(model) if ".layer." in name}


@pytest.mark.parametrize(
    ("rule", "boundaries"),
    [
        (Unfreeze(every_steps=4), (4, 8, 12)),
        (Unfreeze(every_epochs=1), (10, 20, 30)),
        (Unfreeze(every_epochs=0.25), (3, 5, 8)),
    ],
)
def test_one_more_layer_is_trained_after_each_boundary(rule: Unfreeze, boundaries: tuple[int, int, int]) -> None:
    model, phases = frozen(bert3(), unfreeze=rule)
    for number, boundary in enumerate(boundaries, 1):
        assert opened_at(phases, model, boundary) == set(range(4 - number, 3))
        assert opened_at(phases, model, boundary + 1) == set(range(3 - number, 3))
        assert [opening.part for opening in phases.opened(boundary + 1)] == [f"bert.encoder.layer.{3 - number}"]
    assert not any("embeddings" in name for name in trained(model))


def test_a_final_norm_opens_with_the_layer_that_writes_to_it() -> None:
    model, phases = frozen(tiny("llama", "LlamaForCausalLM"), unfreeze=Unfreeze(every_steps=2))
    with phases.at(2):
        assert trained(model) == {"lm_head.weight"}
    with phases.at(3):
        assert {"model.norm.weight", "model.layers.2.mlp.up_proj.weight"} <= trained(model)
    late, phases = frozen(tiny("llama", "LlamaForCausalLM"), unfreeze=Unfreeze(every_steps=2), last_layers=1)
    with phases.at(1):
        assert {"model.norm.weight", "model.layers.2.mlp.up_proj.weight"} <= trained(late)


def test_layers_that_the_run_never_comes_to_are_not_trained() -> None:
    model, _ = frozen(bert3(), unfreeze=Unfreeze(every_steps=4), last_step=8)
    assert {int(name.split(".")[3]) for name in trained(model) if ".layer." in name} == {2}


def test_no_gradient_is_computed_for_what_is_shut_and_the_optimizer_passes_it_over() -> None:
    model, phases = frozen(bert3(), unfreeze=Unfreeze(every_steps=4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.randint(5, 40, (2, 6))
    with phases.at(5):
        model(input_ids=ids).logits.sum().backward()
        optimizer.step()
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in changed if ".layer." in name} == {n for n in before if ".layer.2." in n}
    assert len(optimizer.state) == len(changed), "its state starts with its first own step"


def modes(model: Any) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}


def test_the_frozen_trunk_runs_without_dropout_also_after_an_evaluation() -> None:
    model, phases = frozen(bert3(), last_layers=1)
    for _ in range(2):
        with phases.at(1):
            on = {name for name, training in modes(model).items() if training}
        assert {name.split(".")[3] for name in on if ".layer." in name} == {"2"}
        assert "dropout" in on, "before the classifier"
        assert not any("embeddings" in name for name in on)
        model.eval()
        model.train()
    plain, phases = frozen(bert3(), last_layers=1, eval_trunk=False)
    with phases.at(1):
        assert all(modes(plain).values())
    opening, phases = frozen(bert3(), unfreeze=Unfreeze(every_steps=4))
    with phases.at(4):
        assert not any(on for name, on in modes(opening).items() if ".layer." in name)
    with phases.at(5):
        assert {name.split(".")[3] for name, on in modes(opening).items() if on and ".layer." in name} == {"2"}


def test_dropout_beside_a_trained_weight_is_that_weight_s() -> None:
    model, phases = frozen(bert3(), trainable=("layer.0.attention.self.query",))
    with phases.at(1):
        on = {name for name, training in modes(model).items() if training}
    assert on == {"bert.encoder.layer.0.attention.self.dropout", "dropout"}


@pytest.fixture
def make(tmp_path: Path, bert: Path) -> Make:
    """A run that opens a layer every three steps; `name` is its folder."""
    data = write_jsonl(tmp_path / "train.jsonl", mails(60, seed=1))

    def bench(name: str, **freeze: Any) -> Bench:
        return Bench(
            tmp_path / name,
            {
                "model": {"uri": bert.as_uri()},
                "data": {"train": {"uri": data.as_uri()}, "validation": {"fraction": 0.2}},
                "method": {"type": "freeze", "freeze": {"unfreeze": {"everySteps": EVERY}} | freeze},
                "training": {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-2},
                "evaluation": {"everySteps": 4},
                "checkpoints": {"everySteps": 1, "keepLast": 20},
                "output": {"uri": (tmp_path / name / "out").as_uri()},
            },
        )

    return bench


def steps(bench: Bench) -> list[Any]:
    return [event for event in bench.events() if event["kind"] in ("step", "evaluation", "opening")]


def test_a_run_goes_on_bit_for_bit_from_each_side_of_a_boundary(
    make: Make, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole")
    whole.prepare()
    report = whole.attempt()
    assert [(e["step"], e["part"]) for e in whole.events("opening")] == [
        (EVERY + 1, "bert.encoder.layer.1"),
        (2 * EVERY + 1, "bert.encoder.layer.0"),
    ]
    assert report.resolved is not None
    written, before = load_file(whole.folder / "out/model.safetensors"), load_file(bert / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], written[f"bert.{name}"])}
    assert not any(name.startswith("embeddings.") for name in changed)
    made = [0]
    step = loop.train_step

    def noted(*arguments: Any, **more: Any) -> Any:
        made[0] = more["step"]
        return step(*arguments, **more)

    monkeypatch.setattr(loop, "train_step", noted)
    for last in (EVERY, EVERY + 1, 2 * EVERY - 1):
        broken = make(f"broken-{last}")
        broken.prepare()
        made[0] = 0
        error = broken.failing(1, stop=lambda last=last: made[0] > last)  # type: ignore[misc]
        assert error.reason is Reason.INTERRUPTED
        assert broken.attempt(2).resumed_from_step == last
        assert steps(broken) == steps(whole)
        assert broken.weights() == whole.weights()


def test_the_status_counts_what_is_trained_now(make: Make) -> None:
    bench = make("run")
    bench.prepare()
    counts = []
    tell = openings.tell_trained

    def heard(s: Any, step: int) -> None:
        tell(s, step)
        counts.append(s.progress.last_report.resolved.trainable_parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openings, "tell_trained", heard)
        bench.attempt()
    assert len(counts) == 2
    assert counts[0] < counts[1]


def test_an_earlier_checkpoint_brings_back_layers_that_opened_later(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best one may be of a step that trained less: what was trained since must be as it was then."""
    bench = make("run")
    bench.prepare()
    seen: dict[str, torch.Tensor] = {}
    take = finish.take_best

    def looked_at(s: Any) -> Any:
        refs = [ref for ref in s.checkpoints.listed() if ref.step == EVERY]
        assert refs
        chosen = next(ref for ref in s.checkpoints._refs if ref.step == EVERY)
        s.strategy.load_weights(s.checkpoints.load(chosen, only="model.").tensors)
        seen.update({n: p.detach().clone() for n, p in s.model.named_parameters() if ".layer." in n})
        return take(s)

    monkeypatch.setattr(finish, "take_best", looked_at)
    bench.attempt()
    base = load_model(
        Path(bench.spec["model"]["uri"].removeprefix("file://")),
        task_for("text-classification").head,
        labels=("ham", "spam"),
        seed=0,
        pad_id=0,
    )
    assert seen
    assert all(torch.equal(value, base.get_parameter(name)) for name, value in seen.items())
