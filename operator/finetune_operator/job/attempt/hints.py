"""What to do about a reason, in terms of the pod it came from: the prepare pod has resources of its own."""

from __future__ import annotations

from finetune_api.exits import EXITS, Reason
from finetune_operator.plan import names

_OF_PREPARE = {
    Reason.OOM_KILLED: "Raise spec.prepare.resources.limits.memory.",
    Reason.UNSCHEDULABLE: (
        "Lower spec.prepare.resources, add nodes, or correct spec.prepare.nodeSelector and tolerations."
    ),
    Reason.QUOTA_EXCEEDED: "Lower spec.prepare.resources or raise the quota.",
}


def hint(reason: Reason, component: str) -> str:
    """The contract's hint, or the prepare step's own."""
    own = _OF_PREPARE.get(reason) if component == names.PREPARE else None
    return own or EXITS[reason].hint
