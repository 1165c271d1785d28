"""An example whose way through the frozen layers is behind it: what these gave, and what the rest of the model needs
beside that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.batches.example import Example

KEPT = "finetune_kept_"
"""Inputs of these names, with a number behind, are what was kept; the model itself never sees them."""


@dataclass(frozen=True, slots=True)
class KeptExample(Example):
    """`states`: of each tensor that the last frozen layer gives what is read of it, by position; None: nothing.
    `padded`: positions are those of the input, so that all rows of a batch get as many. `tokens`: of the whole input.
    """

    rest: Example
    states: tuple[torch.Tensor | None, ...]
    padded: bool
    tokens: int

    @property
    def length(self) -> int:
        """Positions that the rest of the model takes."""
        return self.rest.length

    @property
    def rank(self) -> int:
        """That of the whole input: batches are laid out as if nothing was kept."""
        return self.tokens

    @property
    def full_length(self) -> int:  # type: ignore[override]
        """As the rest has it."""
        return self.rest.full_length

    @property
    def hidden(self) -> int:  # type: ignore[override]
        """As the rest has it."""
        return self.rest.hidden

    @property
    def losses(self) -> float:
        """As the rest has them."""
        return self.rest.losses

    @property
    def told(self) -> Example:
        """The rest."""
        return self.rest

    def inputs(self, width: int, pad_id: int) -> dict[str, Any]:
        """Positions beyond the row's own are zeros: nothing reads them."""
        found = self.rest.inputs(width, pad_id)
        for i, state in enumerate(self.states):
            if state is not None:
                missing = width - len(state) if self.padded else 0
                beyond = state.new_zeros((missing, *state.shape[1:]))
                found[f"{KEPT}{i}"] = torch.cat([state, beyond]) if missing else state
        return found

    def labels(self, width: int) -> Any:
        """As the rest has them."""
        return self.rest.labels(width)

    def alone(self, most: int) -> dict[str, Any]:
        """As the rest has it."""
        return self.rest.alone(most)
