"""What a plan is: the writes that bring a job one step on, as plain values. How they are made is the applier's
business.

The applier works in this order: notes, creates, patches, status, deletes (each in the order given). A create that fails
keeps the later creates from being made, and a patch the later patches, but neither keeps the status from being written.
A crash between any two writes is harmless: the next plan starts from what it then sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune_api.status import Status


@dataclass(frozen=True, slots=True)
class Create:
    """POST it.

    On 409: GET; ours (controller ownerReference) is success, else a conflict, and the later creates wait.
    """

    object: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.object["kind"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Patch:
    """Merge-patch named fields of a child of ours. With `uid` None only an object that this job controls is patched.

    A child that is gone meanwhile, or another's by now, is passed over.
    """

    kind: str
    name: str
    uid: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE with background propagation and a UID precondition; gone already is success.

    With `uid` None (ConfigMaps and Services are not watched) the applier reads the object first, and deletes it only if
    this job controls it.
    """

    kind: str
    name: str
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """A Kubernetes Event on the FineTuneJob; made on transitions only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be done now."""

    status: Status
    create: tuple[Create, ...] = ()
    patch: tuple[Patch, ...] = ()
    delete: tuple[Delete, ...] = ()
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None  # seconds until something is due though nothing changes
    read_events: tuple[str, ...] = ()  # names of Jobs and Pods whose Events to read before the next plan
    look_up: tuple[
        str, ...
    ] = ()  # names of Jobs to fetch with their pods before anything is decided; then all else is empty
    delete_self: bool = False  # the time to live is over: delete the FineTuneJob, with a UID precondition
