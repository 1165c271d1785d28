"""A batch/v1 Job, as a planner sees it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api import KIND
from finetune_api.times import seconds
from finetune_operator.plan import names
from finetune_operator.plan.views.fields import WORDS, controller, whole


@dataclass(frozen=True, slots=True)
class JobView:
    """A batch/v1 Job of ours."""

    name: str
    uid: str
    component: str
    attempt: int
    created: float
    owner_uid: str | None = None
    parallelism: int = 1
    suspended: bool = False  # spec.suspend: by a queue manager, the operator never sets it afterwards
    complete: bool = False
    failing: bool = False  # condition FailureTarget: it will fail once its pods are gone
    failed_condition: tuple[str, str] | None = None  # reason and message of a true Failed condition
    active: int = 0  # pods that the Job controller counts as at work
    terminating: int = 0  # pods that it counts as on their way out
    finished: float | None = None  # when it became complete or failed
    started: float | None = None  # status.startTime: reset when a queue manager admits it again
    deleting: bool = False
    queue_name: str | None = None
    restarts_used: int = 0  # of the restart budget, when it was made
    ca_digest: str = ""  # of the report server's CA in its ConfigMap
    image: str = ""  # that its pods' trainer runs

    @property
    def stem(self) -> str:
        """What the names of all children of its FineTuneJob begin with."""
        return self.name.rpartition("-")[0]

    @property
    def terminal(self) -> bool:
        return self.complete or self.failed_condition is not None

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> JobView | None:
        """A batch/v1 Job; None unless a FineTuneJob controls it, and it has a name that we give to children of that
        one."""
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
        owner, known = controller(meta), names.parse(meta["name"])
        if known is None or owner.get("kind") != KIND or known[0] != names.stem(owner["name"], owner["uid"]):
            return None
        true = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
        failed = true.get("Failed")
        end = true.get("Complete") or failed
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            component=known[1],
            attempt=known[2],
            created=seconds(meta.get("creationTimestamp")) or 0.0,
            owner_uid=owner["uid"],
            parallelism=spec.get("parallelism", 1),
            active=status.get("active") or 0,
            terminating=status.get("terminating") or 0,
            suspended=bool(spec.get("suspend")),
            complete="Complete" in true,
            failing="FailureTarget" in true,
            failed_condition=(failed.get("reason") or "", (failed.get("message") or "")[:WORDS]) if failed else None,
            finished=seconds(status.get("completionTime") or end.get("lastTransitionTime")) if end else None,
            started=seconds(status.get("startTime")),
            deleting="deletionTimestamp" in meta,
            queue_name=labels.get(names.QUEUE),
            restarts_used=whole(notes.get(names.RESTARTS_USED)) or 0,
            ca_digest=notes.get(names.CA_DIGEST, ""),
            image=_image(spec),
        )


def _image(job_spec: Mapping[str, Any]) -> str:
    """The image of the trainer's container in a Job's template."""
    containers = ((job_spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return next(
        (sys.intern(str(c.get("image") or "")[:512]) for c in containers if c.get("name") == names.CONTAINER), ""
    )
