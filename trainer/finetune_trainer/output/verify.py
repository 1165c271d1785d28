"""Verify that an export computes what was tuned: the same real rows through both, before anything is committed.

A model that was merged or written wrongly has the same files, sizes and names as a right one; only its answers tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune_api.exits import JobError, Reason
from finetune_trainer.batches.example import Example

TOLERANCE = 1e-4
"""Largest difference of two logits, beside the largest logit where that is above 1."""
ROWS, TOKENS, POSITIONS = 4, 256, 32
"""Rows that are looked at, the most tokens of each, and the positions of them whose logits are compared."""

Logits = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Probe:
    """A few rows to compare models by: what the model takes of each, [1, …] on `device`.

    Rows go one at a time, so that padding plays no part.
    """

    rows: tuple[dict[str, torch.Tensor], ...]
    device: torch.device

    @classmethod
    def of(cls, examples: Sequence[Example], device: torch.device) -> Probe:
        """The first of these rows."""
        taken = (example.alone(TOKENS) for example in examples[:ROWS])
        return cls(
            tuple({n: torch.as_tensor(value, device=device)[None] for n, value in row.items()} for row in taken), device
        )

    def logits(self, model: Any) -> Logits:
        """The model's logits, [positions, outputs] a row, computed in float32 whatever its weights are kept in."""
        kept = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
        was_training = model.training
        model.eval()
        try:
            for tensor, data in kept:
                if tensor.is_floating_point():
                    tensor.data = data.float()
            with torch.inference_mode():
                return [_some(_outputs(model(**row))) for row in self.rows]
        finally:
            for tensor, data in kept:
                tensor.data = data
            model.train(was_training)


def verify(tuned: Logits, exported: Logits, kind: str) -> None:
    """Raises JobError where the two differ; `kind` is "merged" or "written"."""
    worst = max((_difference(a, b) for a, b in zip(tuned, exported, strict=True)), default=0.0)
    if not worst <= TOLERANCE:  # NaN, too
        merged = kind == "merged"
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"the {kind} model does not compute what the tuned one does: logits of real rows differ by {worst:.2g};"
            " nothing was committed",
            field="spec.output.merge" if merged else "spec.model.uri",
            hint=(
                "Set spec.output.merge to false: the adapter by itself is exact."
                if merged
                else "Keep the checkpoints, and report this with the model's config.json."
            ),
        )


def _outputs(answer: Any) -> torch.Tensor:
    """[positions, outputs] of a model's answer to one row: its logits, whatever they are called."""
    found = [value[0] for name, value in answer.items() if name.endswith("logits")]
    return found[0] if len(found) == 1 else torch.stack(found, -1)


def _some(logits: torch.Tensor) -> torch.Tensor:
    """Logits of a row; where it has many positions, those at some of them, the last among them."""
    logits = logits.reshape(-1, logits.shape[-1])
    wanted = torch.linspace(0, len(logits) - 1, min(POSITIONS, len(logits)), device=logits.device).round().long()
    return logits[wanted]


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """In units of the largest logit, if that is above 1."""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1.0))
