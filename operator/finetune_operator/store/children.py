"""The Jobs and pods of every FineTuneJob, and whose they are: by namespace, owner references and names, never by a
label (I10).

Anybody may write our labels onto anything. A Job is a FineTuneJob's if that one controls it, in its own namespace; a
pod, if such a Job does. Which attempt a child belongs to follows from its Job's name, which nobody can change, for the
same reason.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finetune_operator.plan.names import WORKER, Family
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.pod import PodView

BURIED = 16_384
"""So many deletions are remembered, so that an answer or a list from before them brings nothing back."""


@dataclass(frozen=True, slots=True)
class Child:
    """A Job or pod as last seen."""

    family: Family
    version: int
    view: JobView | PodView


class Children:
    """All that carry our labels and have the right form, by family: the namespace and the stem of the Jobs' names."""

    def __init__(self) -> None:
        self._all: dict[str, Child] = {}  # by UID
        self._families: dict[Family, dict[str, Child]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._all)

    def get(self, uid: str) -> Child | None:
        return self._all.get(uid)

    def put(self, uid: str, child: Child) -> None:
        self.pop(uid)
        self._all[uid] = self._families[child.family][uid] = child

    def pop(self, uid: str) -> Child | None:
        """Take it out; None if it is not there."""
        child = self._all.pop(uid, None)
        if child:
            family = self._families[child.family]
            del family[uid]
            if not family:
                del self._families[child.family]
        return child

    def uids(self, view: type[JobView] | type[PodView]) -> Iterable[str]:
        return (uid for uid, child in self._all.items() if isinstance(child.view, view))

    def jobs(self, family: Family, owner: str) -> list[JobView]:
        """The Jobs that the FineTuneJob of UID `owner` controls."""
        views = (child.view for child in self._families.get(family, {}).values())
        return [v for v in views if isinstance(v, JobView) and v.owner_uid == owner]

    def pods(self, family: Family, owner: str, gone: Mapping[str, str], attempt: int) -> list[PodView]:
        """Its pods, see `ours`."""
        views = (child.view for child in self._families.get(family, {}).values())
        return [v for v in views if isinstance(v, PodView) and self.ours(v, family, owner, gone, attempt)]

    def ours(self, pod: PodView, family: Family, owner: str, gone: Mapping[str, str], attempt: int) -> bool:
        """Whether the pod is one of the FineTuneJob `owner`.

        `gone`: its Jobs that are no more, name by UID: a suspend deletes the Job while the pods still write a
        checkpoint. After a restart nobody remembers such a Job. Then the pod must be on its way out, its Job's name one
        that we gave (workers: up to `attempt`, the newest known), and no other Job by that name may be there.
        """
        controller = pod.owner_uid or ""
        found = self._all.get(controller)
        if found is not None:
            job = found.view
            ours = isinstance(job, JobView) and job.owner_uid == owner and job.name == pod.owner_job
            return ours and found.family == family
        if controller in gone:
            return gone[controller] == pod.owner_job
        if not pod.deleting or (pod.component == WORKER and pod.attempt > attempt):
            return False
        return all(job.name != pod.owner_job for job in self.jobs(family, owner))


class Graves:
    """UIDs of what was deleted, each with the version at which it was; the newest BURIED of them."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, int] = OrderedDict()

    def bury(self, uid: str, version: int) -> None:
        self._versions[uid] = max(version, self._versions.pop(uid, 0))
        while len(self._versions) > BURIED:
            self._versions.popitem(last=False)

    def hold(self, uid: str, version: int) -> bool:
        """Whether that version of the object is from before its deletion."""
        return version <= self._versions.get(uid, -1)
