"""What the stream hands to the training loop: a global batch, and the cursor that stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the stream stands: `step` batches were made; the next begins at `row` of epoch `epoch`'s order."""

    step: int = 0
    epoch: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A global batch as one rank sees it: its own rows, and the split's row numbers of all of them."""

    rows: list[dict[str, Any]]
    indices: list[int]
    epoch: int
    step: int  # counts from 1: the optimizer step that this batch makes

    @property
    def size(self) -> int:
        """Rows of the whole global batch."""
        return len(self.indices)
