"""What the queue, the store and the reconciler call a resource by."""

from __future__ import annotations

from typing import Any, NamedTuple


class Key(NamedTuple):
    """Kind, namespace and name: enough to look the resource up, whoever enqueues it. The kind selects the planner."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, kind: str, metadata: dict[str, Any]) -> Key:
        return cls(kind, metadata["namespace"], metadata["name"])

    def __str__(self) -> str:
        """As log lines name it."""
        return f"{self.namespace}/{self.name}"
