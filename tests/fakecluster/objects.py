"""The state of the fake API server: objects with uid, resourceVersion and generation, and every refusal a real one
gives.

Not a real one: no schema, no CEL, no field ownership (a server-side apply of a status replaces the whole of it, as it
does where one manager owns all). tests/operator/test_apiserver.py holds the operator to a real one.
"""

from __future__ import annotations

import copy
import datetime
import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
Ref = tuple[str, str, str]
"""Plural, namespace, name."""

RESOURCES = {
    "finetunejobs": ("finetune-operator.io", "v1alpha1", "FineTuneJob"),
    "jobs": ("batch", "v1", "Job"),
    "pods": ("", "v1", "Pod"),
    "services": ("", "v1", "Service"),
    "secrets": ("", "v1", "Secret"),
    "configmaps": ("", "v1", "ConfigMap"),
    "events": ("", "v1", "Event"),
    "leases": ("coordination.k8s.io", "v1", "Lease"),
}


class Refusal(Exception):
    """An HTTP error of the API server."""

    def __init__(self, code: int, reason: str, message: str = "", retry_after: int | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """All objects, and the history that watches read: (version, plural, event type, object).

    A stored object is never changed, only replaced: so it is handed out as it is, and readers leave it alone.
    """

    def __init__(self, clock: Callable[[], str] = now) -> None:
        self.clock = clock
        self._uids = itertools.count(0xABC00001)
        self._versions = itertools.count(100)
        self.version = 100
        self.oldest = 0  # watches from an older version get 410
        self.all: dict[Ref, Object] = {}
        self._names: dict[str, set[Ref]] = defaultdict(set)  # by plural
        self._owned: dict[str, set[Ref]] = defaultdict(set)  # by the owner's UID
        self.history: list[tuple[int, str, str, Object]] = []
        self.changed: list[Callable[[], None]] = []
        self.graceful_pods = False  # a deleted pod stays, with deletionTimestamp, until finish_pod

    def get(self, ref: Ref) -> Object:
        if ref not in self.all:
            raise Refusal(404, "NotFound", f'{ref[0]} "{ref[2]}" not found')
        return self.all[ref]

    def list(self, plural: str, namespace: str | None = None, labels: str = "", fields: str = "") -> list[Object]:
        names = sorted(self._names[plural])
        return [
            o
            for o in (self.all[ref] for ref in names if namespace in (None, "", ref[1]))
            if selected(o, labels, fields)
        ]

    def owned(self, plural: str, uid: str) -> list[Object]:
        """The objects that the one of this UID owns, by name."""
        return [self.all[ref] for ref in sorted(self._owned[uid]) if ref[0] == plural]

    def create(self, plural: str, namespace: str, body: Object) -> Object:
        obj, meta = copy.deepcopy(body), copy.deepcopy(body.get("metadata") or {})
        ref = (plural, namespace, meta["name"])
        if ref in self.all:
            raise Refusal(409, "AlreadyExists", f'{plural} "{meta["name"]}" already exists')
        meta |= {
            "namespace": namespace,
            "uid": f"{next(self._uids):08x}-0000-4000-8000-000000000000",
            "creationTimestamp": self.clock(),
            "generation": 1,
        }
        group, version, kind = RESOURCES[plural]
        obj |= {"apiVersion": f"{group}/{version}".lstrip("/"), "kind": kind, "metadata": meta}
        if plural == "finetunejobs":
            obj.pop("status", None)
        return self._store(ref, obj, "ADDED")

    def replace(self, ref: Ref, body: Object) -> Object:
        old = self._checked(ref, body)
        return self._store(
            ref, body | {"metadata": old["metadata"] | {"labels": body["metadata"].get("labels", {})}}, "MODIFIED"
        )

    def merge(self, ref: Ref, patch: Object, status: bool = False) -> Object:
        """Merge patch; of the status subresource only the status counts, else everything but it (where it is split
        off).
        """
        if (patch.get("metadata") or {}).get("uid") not in (None, self.get(ref)["metadata"]["uid"]):
            raise Refusal(422, "Invalid", "metadata.uid: Invalid value: field is immutable")
        old = self._checked(ref, patch)
        meta_patch = {k: v for k, v in (patch.get("metadata") or {}).items() if k in ("labels", "annotations")}
        split = ref[0] == "finetunejobs"
        rest = {k: v for k, v in patch.items() if k != "metadata" and (not split or (k == "status") == status)}
        return self._update(ref, old, _merged(old, rest | ({"metadata": meta_patch} if meta_patch else {})))

    def apply_status(self, ref: Ref, body: Object) -> Object:
        """Server-side apply by the one manager that owns the whole status; a UID is ignored, as on 1.34."""
        old = self._checked(ref, {"metadata": {"resourceVersion": body["metadata"].get("resourceVersion")}})
        return self._update(ref, old, old | {"status": copy.deepcopy(body.get("status") or {})})

    def delete(self, ref: Ref, options: Object | None = None) -> None:
        obj = self._checked(ref, {"metadata": (options or {}).get("preconditions") or {}})
        grace = (options or {}).get("gracePeriodSeconds")
        if ref[0] == "pods" and self.graceful_pods and grace != 0:
            if "deletionTimestamp" not in obj["metadata"]:
                meta = obj["metadata"] | {"deletionTimestamp": self.clock()}
                self._store(ref, obj | {"metadata": meta}, "MODIFIED")
            return
        self.remove(ref)

    def remove(self, ref: Ref) -> None:
        """Gone, with all that it owns."""
        obj = self.all.pop(ref)
        self._names[ref[0]].discard(ref)
        for owner in obj["metadata"].get("ownerReferences") or ():
            self._owned[owner["uid"]].discard(ref)
        self._event(ref, obj | {"metadata": dict(obj["metadata"])}, "DELETED")
        for child in sorted(self._owned.pop(obj["metadata"]["uid"], ())):
            if child in self.all:
                self.delete(child)

    def set_status(self, ref: Ref, **fields: Any) -> Object:
        """As a controller or kubelet would."""
        old = self.get(ref)
        return self._update(ref, old, old | {"status": (old.get("status") or {}) | fields})

    def _checked(self, ref: Ref, body: Object) -> Object:
        old, meta = self.get(ref), body.get("metadata") or {}
        for field in ("uid", "resourceVersion"):
            if meta.get(field) and meta[field] != old["metadata"][field]:
                raise Refusal(409, "Conflict", f"Precondition failed: {field}")
        return old

    def _update(self, ref: Ref, old: Object, new: Object) -> Object:
        if new == old:
            return old  # a write that changes nothing makes no new version
        if new.get("spec") != old.get("spec"):
            new = new | {"metadata": new["metadata"] | {"generation": old["metadata"]["generation"] + 1}}
        return self._store(ref, new, "MODIFIED")

    def _store(self, ref: Ref, obj: Object, event: str) -> Object:
        obj = copy.deepcopy(obj)
        self.all[ref] = obj
        self._names[ref[0]].add(ref)
        for owner in obj["metadata"].get("ownerReferences") or ():
            self._owned[owner["uid"]].add(ref)
        self._event(ref, obj, event)
        return obj

    def _event(self, ref: Ref, obj: Object, event: str) -> None:
        self.version = next(self._versions)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, ref[0], event, obj))
        for wake in self.changed:
            wake()


def selected(obj: Object, labels: str, fields: str = "") -> bool:
    have = obj["metadata"].get("labels") or {}
    if any(have.get(k) != v for k, _, v in (term.partition("=") for term in labels.split(",") if term)):
        return False
    for path, _, value in (term.partition("=") for term in fields.split(",") if term):
        found: Any = obj
        for part in path.split("."):
            found = (found or {}).get(part)
        if found != value:
            return False
    return True


def _merged(old: Object, patch: Object) -> Object:
    new = copy.deepcopy(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict) and isinstance(new.get(key), dict):
            new[key] = _merged(new[key], value)
        else:
            new[key] = copy.deepcopy(value)
    return new
