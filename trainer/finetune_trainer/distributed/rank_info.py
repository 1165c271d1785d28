"""Which process of the run this one is. Without torch: the launcher, which forks the processes, uses it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankInfo:
    """Rank of size, and the number of the process on its node."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
