"""A FineTuneJob as the store keeps it: what is asked for often at hand, the rest packed."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from finetune_api import KIND
from finetune_api.times import seconds
from finetune_operator.job.observed import ended
from finetune_operator.plan import names
from finetune_operator.store.key import Key

_KEPT = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp", "labels")


@dataclass(slots=True)
class JobRecord:
    """A FineTuneJob: what is asked for often, and the rest packed."""

    key: Key
    uid: str
    version: int
    created: float
    generation: int
    phase: str
    ended: bool  # whether status says, in any version's words, that it is over
    attempt: int  # the newest that the status mentions
    deleting: bool
    output: str  # where it writes to, see _output
    rests: bool  # finished, and the status is of the spec as it is now
    ends: float | None  # when its time to live is over
    trigger: int  # changes when something other than the status does
    packed: bytes

    @property
    def active(self) -> bool:
        return not self.ended and not self.deleting

    @property
    def family(self) -> names.Family:
        return self.key.namespace, names.stem(self.key.name, self.uid)

    @property
    def place(self) -> str | None:
        """Where it writes to, if it is at work."""
        return self.output if self.active else None

    @classmethod
    def of(cls, obj: dict[str, Any]) -> JobRecord:
        """Of a FineTuneJob as the API server sends it."""
        meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
        slim = {k: v for k, v in meta.items() if k in _KEPT}
        body = json.dumps({"metadata": slim, "spec": spec, "status": status}, separators=(",", ":"))
        return cls(
            key=Key.of(KIND, meta),
            uid=meta["uid"],
            version=int(meta["resourceVersion"]),
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            generation=int(meta.get("generation") or 0),
            phase=str(status.get("phase") or ""),
            ended=ended(status),
            attempt=_attempt(status),
            deleting="deletionTimestamp" in meta,
            output=_output(meta["namespace"], spec),
            rests=ended(status) and status.get("observedGeneration") == meta.get("generation"),
            ends=_ends(spec, status),
            trigger=hash(json.dumps([slim, spec], sort_keys=True)),
            packed=zlib.compress(body.encode(), 6),
        )


def _attempt(status: dict[str, Any]) -> int:
    value = status.get("attempt")
    return value if isinstance(value, int) else 0


def _ends(spec: dict[str, Any], status: dict[str, Any]) -> float | None:
    ttl, end = spec.get("ttlSecondsAfterFinished"), seconds(status.get("completionTime"))
    return end + ttl if isinstance(ttl, int) and end is not None else None


def _output(namespace: str, spec: dict[str, Any]) -> str:
    """Where a job writes to, of a spec that may not be readable: namespace, endpoint and the output's URI, without
    closing slashes.

    Jobs of other namespaces are none of ours to judge, or to name: between those the marker in the storage decides.
    """
    uri = str((spec.get("output") or {}).get("uri") or "").rstrip("/")
    return f"{namespace}/{str((spec.get('storage') or {}).get('endpoint') or '').rstrip('/')} {uri}"
