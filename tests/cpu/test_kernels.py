"""The kernels for CPUs compute what torch's own compute."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_api.tuning import Method
from finetune_trainer.cpu import dropout, linear
from finetune_trainer.methods import apply_method
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.registry import task_for

ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch carries no oneDNN")
ELEMENTS = 400_001
"""Odd, and enough that a share's deviation is below 0.005 but once in 10^9."""


@pytest.fixture
def kernels() -> Iterator[None]:
    """torch's own kernel comes back."""
    dropout.install()
    yield
    for kernels in dropout._kernels:
        kernels._destroy()  # type: ignore[no-untyped-call]
    dropout._kernels.clear()


def made(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, call: Any) -> list[torch.Tensor | None]:
    """The output and the gradients of whatever takes one."""
    given = [None if t is None else t.detach().clone().requires_grad_(t.requires_grad) for t in (x, weight, bias)]
    out = call(*given)
    (out * torch.linspace(0.5, 2.0, out.shape[-1])).sum().backward()
    return [out, *(None if t is None else t.grad for t in given)]


@ONEDNN
@pytest.mark.parametrize("shape", [(5,), (1, 5), (7, 5), (3, 4, 5), (0, 5)])
@pytest.mark.parametrize("learned", [(1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 0, None), (0, 1, None)])
def test_output_and_gradients_are_torchs(shape: tuple[int, ...], learned: tuple[int | None, ...]) -> None:
    """For every number of dimensions, with and without bias, and whatever is frozen."""
    generator = torch.Generator().manual_seed(1)
    sizes = (shape, (6, 5), (6,))
    given = [
        None if flag is None else torch.randn(size, generator=generator).requires_grad_(bool(flag))
        for size, flag in zip(sizes, learned, strict=True)
    ]
    ours = made(*given, linear._Linear.apply)  # type: ignore[arg-type]
    torchs = made(*given, nn.functional.linear)  # type: ignore[arg-type]
    for mine, theirs in zip(ours, torchs, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine, theirs)


@ONEDNN
def test_rows_that_lie_apart_are_taken_as_they_are() -> None:
    """A BERT's pooler takes the first token of each row: a view with gaps."""
    tokens, weight = torch.randn(4, 9, 5), torch.randn(6, 5)
    torch.testing.assert_close(linear.product(tokens[:, 0], weight), tokens[:, 0] @ weight.t())
    torch.testing.assert_close(linear.product(tokens.transpose(0, 1), weight), tokens.transpose(0, 1) @ weight.t())


@ONEDNN
@pytest.mark.parametrize("method", ["full", "freeze", "lora"])
def test_a_model_learns_the_same(bert: Path, method: str) -> None:
    """Loss and gradients of a whole model agree; its parameters keep their names, and those that are frozen stay so."""
    found = []
    for ours in (False, True):
        model = load_model(bert, task_for("text-classification").head, labels=("ham", "spam"), seed=1, pad_id=0)
        model = apply_method(
            model, Method.model_validate({"type": method}), task_for("text-classification").head, 1
        ).eval()
        if ours:
            assert linear.replace(model) > 4
            assert linear.replace(model) == 0, "a second time there is nothing left"
        ids = torch.arange(5, 37).reshape(2, 16)
        loss = nn.functional.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1]))
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
    (torchs_loss, torchs), (our_loss, ours_gradients) = found
    torch.testing.assert_close(our_loss, torchs_loss)
    assert list(ours_gradients) == list(torchs)
    for name, gradient in torchs.items():
        assert (gradient is None) == (ours_gradients[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(ours_gradients[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
@ONEDNN
def test_it_is_used_where_it_was_seen_to_be_faster(
    tmp_path: Path, vendor: str, capability: str, expected: bool
) -> None:
    """MKL takes AVX-512 on Intel's processors by itself."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    assert linear.is_faster(cpuinfo, capability) is expected


@pytest.mark.parametrize("p", [0.5, 0.9, 0.1, 0.99, 0.999, 1e-5])
def test_masks_keep_the_share_asked_for(p: float) -> None:
    """In each of the four parts of a number, for odd sizes too; only ones and zeros."""
    drawn = dropout.bernoulli_(torch.empty(ELEMENTS), p, generator=torch.Generator().manual_seed(3))
    again = dropout.bernoulli_(torch.empty(ELEMENTS), p, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, again), "it is the generator given that decides"
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    deviation = 6 * (p * (1 - p)) ** 0.5
    for lane in (drawn[i :: dropout.LANES] for i in range(dropout.LANES)):
        assert abs(lane.mean().item() - p) <= deviation / lane.numel() ** 0.5
    pairs = (drawn[:-1] * drawn[1:]).mean().item()
    assert abs(pairs - p * p) <= deviation / ELEMENTS**0.5, "neighbours are independent"


def test_the_ends_are_certain_and_nonsense_is_refused() -> None:
    """0 and 1 are exact."""
    assert dropout.bernoulli_(torch.empty(1000), 0.0).sum() == 0
    assert dropout.bernoulli_(torch.empty(1000), 1.0).sum() == 1000
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(RuntimeError, match="p to be in"):
            dropout.bernoulli_(torch.empty(1), p)


def test_masks_follow_the_seed(kernels: None) -> None:
    """All dropout draws from torch's generator: the same seed gives the same mask, the next call another."""
    x = torch.ones(3, 5, 7).transpose(0, 2)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append((nn.functional.dropout(x, 0.3), nn.functional.dropout(x, 0.3)))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])
    torch.testing.assert_close(drawn[0][0].unique(), torch.tensor([0.0, 1 / 0.7]))


def test_attention_drops_by_it_too(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch's fused attention drops is drawn by the same kernel."""
    torch.manual_seed(1)
    q = torch.randn(2, 3, 8, 4)
    before = torch.get_rng_state()
    nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.1)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.empty(2 * 3 * 8 * 8 // dropout.LANES, dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(after, torch.get_rng_state())


FAULTS = """
import resource, sys
import torch
from finetune_trainer.cpu import memory
torch.set_num_threads(1)
if not memory.keep():
    sys.exit("the allocator did not heed it")
for step in range(22):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(6 * 1024, 1024) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_memory_is_asked_of_the_system_once() -> None:
    """Four blocks of 24 MiB are made and dropped in each of twenty steps: half a million page faults, if given back
    each time.
    """
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, stdout=subprocess.PIPE)
    assert int(done.stdout) < 50_000


def test_recomputed_activations_drop_the_same(bert: Path, kernels: None) -> None:
    """Gradient checkpointing runs the forward pass twice; both must draw one mask, or the gradient is of neither."""
    found = []
    for recompute in (False, True):
        model = load_model(bert, task_for("text-classification").head, labels=("ham", "spam"), seed=1, pad_id=0)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        linear.replace(model)
        torch.manual_seed(5)
        model(input_ids=torch.arange(5, 37).reshape(2, 16)).logits.sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)
