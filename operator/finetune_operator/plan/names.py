"""Names and labels of all children, derived from the job's name and UID alone.

A child's name is the same in every plan, so making it twice is a 409 and never a duplicate (invariant I6). Services
refuse names that start with a digit or hold dots (DNS-1035), and `<job>-<index>` must be a DNS label: hence a prefix
and a slug.
"""

from __future__ import annotations

import hashlib
import re

from finetune_api import GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "finetune-operator"
APP = "app.kubernetes.io/name"
JOB_UID = f"{GROUP}/job-uid"
JOB = f"{GROUP}/job"
COMPONENT = f"{GROUP}/component"
ATTEMPT = f"{GROUP}/attempt"
PREPARE = "prepare"
WORKER = "worker"
RESTARTS_USED = f"{GROUP}/restarts-used"
CA_DIGEST = f"{GROUP}/report-ca"
INDEX = "batch.kubernetes.io/job-completion-index"
KUEUE = "kueue.x-k8s.io/"
QUEUE = f"{KUEUE}queue-name"
CONTAINER = "trainer"

SLUG = 30
LONGEST = 52
MOST = 9_999_999
"""Attempts are numbered up to here; a Job with a higher number was not made by us."""

_CHILD = re.compile(r"(ft-[a-z0-9-]{1,30}-[0-9a-f]{8})-(p?)([1-9][0-9]{0,6})")

Family = tuple[str, str]
"""Namespace, and stem of the names of a job's children."""


def slug(name: str) -> str:
    """At most 30 characters of the name that a DNS label may hold; "job" where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:SLUG].strip("-") or "job"


def short_uid(uid: str) -> str:
    """8 hex digits of the UID."""
    head = uid[:8].lower()
    return head if re.fullmatch(r"[0-9a-f]{8}", head) else hashlib.sha256(uid.encode()).hexdigest()[:8]


def stem(name: str, uid: str) -> str:
    """What the names of all children of a job begin with: ft-<slug>-<uid>."""
    return f"ft-{slug(name)}-{short_uid(uid)}"


def child(name: str, uid: str, component: str, number: int) -> str:
    """Name of a Job, and of its ConfigMap and Service: <stem>-<attempt>, or -p<attempt> for the prepare step."""
    assert 1 <= number <= MOST, number
    full = f"{stem(name, uid)}-{'p' if component == PREPARE else ''}{number}"
    assert len(full) <= LONGEST, full
    return full


def parse(full: str) -> tuple[str, str, int] | None:
    """Stem, component and number of a name that `child` may have given; None for any other."""
    found = _CHILD.fullmatch(full)
    return (found[1], PREPARE if found[2] else WORKER, int(found[3])) if found else None


def label_value(name: str) -> str:
    """The name as a label's value: itself up to 63 characters, else cut with a hash."""
    if len(name) <= 63:
        return name
    return f"{name[:54].rstrip('.-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def labels(name: str, uid: str, component: str, number: int) -> dict[str, str]:
    """Labels of every child."""
    return {
        MANAGED_BY: MANAGER,
        APP: "finetune-trainer",
        JOB_UID: uid,
        JOB: label_value(name),
        COMPONENT: component,
        ATTEMPT: str(number),
    }
