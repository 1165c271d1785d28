"""The headless Services of attempts: not watched, but listed now and then, so that those of ended attempts are found
and go.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from finetune_operator.plan.views.service import ServiceView


class Services:
    """By the FineTuneJob that controls them, in its own namespace (I10)."""

    def __init__(self) -> None:
        self._all: dict[str, ServiceView] = {}
        self._of: dict[tuple[str, str], dict[str, ServiceView]] = defaultdict(dict)

    def put(self, obj: dict[str, Any]) -> None:
        self.pop(obj["metadata"]["uid"])  # its owner may be another by now, or none
        view = ServiceView.from_object(obj)
        if view is not None:
            self._all[view.uid] = self._of[view.namespace, view.owner_uid][view.uid] = view

    def pop(self, uid: str) -> None:
        view = self._all.pop(uid, None)
        if view is not None:
            mine = self._of[view.namespace, view.owner_uid]
            del mine[uid]
            if not mine:
                del self._of[view.namespace, view.owner_uid]

    def get(self, uid: str) -> ServiceView | None:
        return self._all.get(uid)

    def uids(self) -> frozenset[str]:
        return frozenset(self._all)

    def of(self, namespace: str, owner: str) -> tuple[ServiceView, ...]:
        """Those of one FineTuneJob, by name."""
        return tuple(sorted(self._of.get((namespace, owner), {}).values(), key=lambda view: view.name))
