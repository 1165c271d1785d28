"""Bad rows as they are met: counted by kind, the first few of each with file and line, all of them listed up to the
limit.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from finetune_api.exits import JobError, Reason
from finetune_api.records import Fault
from finetune_api.status import Finding

GIVE_UP_AFTER = 10_000
"""So many bad rows more than allowed, and the rest need not be read to know what is wrong."""
SHOWN = 4
"""Places of each kind that are named."""


@dataclass(slots=True)
class Kind:
    """One kind of fault: what the first was, and where the first few are."""

    message: str
    places: list[tuple[str, int]] = field(default_factory=list)
    count: int = 0

    @property
    def first(self) -> str:
        """file:line of the first; the file alone where it is the row."""
        file, line = self.places[0]
        return f"{file}:{line}" if line else file

    def finding(self, name: str, left_out: bool) -> Finding:
        """As status shows it: the first place in full, the next ones in the message."""
        (file, line), *others = self.places
        message = f"Left out: {self.message}" if left_out else self.message
        also = ", ".join(f"{other.rpartition('/')[2]}{f':{n}' if n else ''}" for other, n in others)
        if also:
            more = ", …" if self.count > len(self.places) else ""
            also = f"; also at {also}{more}"[:256]
        return Finding(
            kind=name, count=self.count, file=file[-256:], line=line or None, message=message[: 384 - len(also)] + also
        )


class BadRows:
    """Counts faults over all sources in the order they are read."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.count = 0
        self.kinds: dict[str, Kind] = {}
        self._rows: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))

    def add(self, source: str, number: int, row: int, file: str, line: int, fault: Fault) -> None:
        """Note one. Raises JobError once it is certain that reading on is of no use."""
        self.count += 1
        kind = self.kinds.setdefault(fault.kind, Kind(fault.message))
        kind.count += 1
        if len(kind.places) < SHOWN:
            kind.places.append((file, line))
        if self.count <= self.allowed:
            self._rows[source][number].append(row)
        if self.count >= self.allowed + GIVE_UP_AFTER:
            raise self.refusal(at_least=True)

    @property
    def too_many(self) -> bool:
        """Whether the job must be refused."""
        return self.count > self.allowed

    @property
    def rows(self) -> dict[str, dict[int, tuple[int, ...]]]:
        """The bad rows for the profile."""
        return {
            source: {n: tuple(sorted(rows)) for n, rows in numbers.items()} for source, numbers in self._rows.items()
        }

    def refusal(self, at_least: bool = False) -> JobError:
        """InvalidData; its message begins with the first bad row's file and line."""
        first, *others = self.kinds.values()
        message = f"{first.first}: {first.message}"
        counts = ", ".join(f"{kind.count} {name}" for name, kind in self.kinds.items())
        some = "at least " if at_least else ""
        message += (
            f". In all {some}{self.count} bad row{'s' if self.count > 1 else ''} ({counts}), {self.allowed} allowed"
        )
        if others:
            message += "; first " + ", ".join(f"{name} at {k.first}" for name, k in list(self.kinds.items())[1:4])
        return JobError(Reason.INVALID_DATA, message[:1000], field="spec.data")

    def findings(self) -> list[Finding]:
        """One for each kind, most frequent first; "left out" only where the job goes on without those rows."""
        found = sorted(self.kinds.items(), key=lambda item: -item[1].count)
        return [kind.finding(name, left_out=not self.too_many) for name, kind in found]
