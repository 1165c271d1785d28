"""Whether a cut gives what the whole model gives, and what is to be kept of each row: found out on a few rows.

What the rest of the model reads is told by poison: where all positions but the first (or the last of each row) are not
a number, and what comes out has the same bits, these are never read, as with a head that looks at one token. Then one
position a row is kept, and the rest of the model is given no more than that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import Example
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective
from finetune_trainer.trunk.cut import CannotCut, Cut
from finetune_trainer.trunk.kept_example import KEPT, KeptExample

NOTHING, FIRST, LAST, ALL = "nothing", "first", "last", "all"
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Share of the largest output by which kept and computed ones may differ: rounding, and no more."""
COARSE = 3e-2
"""That of computations in 16 bits."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept of each tensor that the frozen part gives. `by_token`: its positions are the input's. `alone`: the
    rest of the model takes nothing else.
    """

    ways: tuple[str, ...]
    by_token: tuple[bool, ...]
    alone: bool = False

    @property
    def narrow(self) -> str:
        """Which positions of the input the rest of the model is given."""
        if self.alone:
            return FIRST
        read = {way for way in self.ways if way != NOTHING}
        return read.pop() if len(read) == 1 else ALL

    def kept(self, tensors: Sequence[torch.Tensor], examples: Sequence[Example], pad_id: int) -> list[KeptExample]:
        """Of the examples that went through the frozen layers in one batch, in its order; on the CPU.

        Raises CannotCut for a kind of examples that does not tell what is left of it, and for a row that ends with what
        pads others, where the last position is read: which one that is would be told from the ids before it.
        """
        found = []
        for i, example in enumerate(examples):
            if self.narrow == LAST and any(self.by_token) and example.alone(example.length)["input_ids"][-1] == pad_id:
                raise CannotCut("a row ends with the pad token")
            rest = example.lean(place(self.narrow))
            if rest is None:
                raise CannotCut(f"{type(example).__name__} does not tell what is left of it")
            states = tuple(
                None if way == NOTHING else _read(tensor[i, : example.length] if by_token else tensor[i], way)
                for tensor, way, by_token in zip(tensors, self.ways, self.by_token, strict=True)
            )
            padded = any(self.by_token)
            found.append(KeptExample(rest, states, padded, example.tokens))
        return found


def place(way: str) -> slice:
    """The positions that are read."""
    return {FIRST: slice(0, 1), LAST: slice(-1, None)}.get(way, slice(None))


def _read(state: torch.Tensor, way: str) -> torch.Tensor:
    return state[place(way)].contiguous().cpu()


def trial(
    cut: Cut, objective: Objective, examples: Sequence[Example], pad_id: int, max_length: int
) -> tuple[Keeping, list[KeptExample]]:
    """What is to be kept, and that of the examples. The model is in eval mode, without gradients.

    Raises CannotCut where it gives anything else than the whole model does.
    """
    batch = collate(examples, pad_id, max_length).to(_device(cut.model))
    plain = objective(cut.model, batch)
    tensors = cut.tried(batch.inputs)
    rows = len(examples)
    for tensor in tensors:
        if tensor.dim() < 2 or len(tensor) != rows or not tensor.is_floating_point():
            raise CannotCut(f"its layers give a tensor of shape {list(tensor.shape)} for {rows} rows")
    worst = float("inf")
    for keeping in _ways(cut, objective, batch, tensors):
        if all(way == NOTHING for way in keeping.ways):
            continue
        kept = keeping.kept(tensors, examples, pad_id)
        found = objective(cut.model, collate(kept, pad_id, max_length).to(_device(cut.model)))
        worst = _difference(found, plain)
        if worst <= _tolerance(tensors):
            return keeping, kept
    raise CannotCut(f"with what was kept the model gives something else, by {worst:.2g} of its largest output")


def _ways(cut: Cut, objective: Objective, batch: MicroBatch, tensors: Sequence[torch.Tensor]) -> Sequence[Keeping]:
    """What might do, the least first."""
    ids, whole = batch.inputs.get("input_ids"), (ALL,) * len(tensors)
    if cut.alone:
        return [Keeping(whole, (False,) * len(tensors), alone=True)]
    by_token = tuple(ids is not None and tensor.shape[1] == ids.shape[1] for tensor in tensors)
    if ids is not None and not all(by_token):
        raise CannotCut("its layers give other positions than it takes")
    least = tuple(_way(cut, objective, batch, tensors, i) for i in range(len(tensors)))
    return list(dict.fromkeys((Keeping(least, by_token), Keeping(whole, by_token))))


def _way(cut: Cut, objective: Objective, batch: MicroBatch, tensors: Sequence[torch.Tensor], i: int) -> str:
    """What is read of tensor i."""
    given = {f"{KEPT}{n}": tensor for n, tensor in enumerate(tensors)}
    right = objective(cut.model, _with(batch, given))
    several = any(example.length > 2 for example in batch.examples)  # else the first might be the last, or all
    for way in (NOTHING, FIRST, LAST) if several else (NOTHING,):
        poisoned = torch.full_like(tensors[i], torch.nan)
        for row, example in enumerate(batch.examples):
            length = min(example.length, tensors[i].shape[1])
            at = {NOTHING: slice(0, 0), FIRST: slice(0, 1), LAST: slice(length - 1, length)}[way]
            poisoned[row, at] = tensors[i][row, at]
        found = objective(cut.model, _with(batch, given | {f"{KEPT}{i}": poisoned}))
        if all(torch.equal(a, b) for a, b in zip(_all(found), _all(right), strict=True)):
            return way
    return ALL


def _with(batch: MicroBatch, given: dict[str, torch.Tensor]) -> MicroBatch:
    return dataclasses.replace(batch, inputs=batch.inputs | given)


def _all(losses: Losses) -> list[torch.Tensor]:
    return [losses.sums] + ([] if losses.outputs is None else [losses.outputs])


def _difference(found: Losses, right: Losses) -> float:
    """The largest one, as a share of the largest output; infinite where the forms differ."""
    worst = 0.0
    for a, b in zip(_all(found), _all(right), strict=True):
        if a.shape != b.shape or not torch.equal(torch.isfinite(a), torch.isfinite(b)):
            return float("inf")
        finite = torch.isfinite(b)
        if finite.any():
            a, b = a[finite].double(), b[finite].double()
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)))
    return worst


def _tolerance(tensors: Sequence[torch.Tensor]) -> float:
    coarse = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    return COARSE if coarse else max(TOLERANCES.get(tensor.dtype, COARSE) for tensor in tensors)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
