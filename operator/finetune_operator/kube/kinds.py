"""The kinds of resources that the operator reads or writes, as URLs name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_api import GROUP, KIND, PLURAL, VERSION

Object = dict[str, Any]
"""A resource as the API server sends it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource as URLs name it."""

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        parts = ["/api" if not self.group else f"/apis/{self.group}", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *([name] if name else [])])


FINETUNE_JOB = Kind(KIND, GROUP, VERSION, PLURAL)
JOB = Kind("Job", "batch", "v1", "jobs")
POD = Kind("Pod", "", "v1", "pods")
SERVICE = Kind("Service", "", "v1", "services")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
EVENT = Kind("Event", "", "v1", "events")
SECRET = Kind("Secret", "", "v1", "secrets")
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
TOKEN_REVIEW = Kind("TokenReview", "authentication.k8s.io", "v1", "tokenreviews", namespaced=False)
KINDS = {kind.kind: kind for kind in (FINETUNE_JOB, JOB, POD, SERVICE, CONFIG_MAP, EVENT, LEASE, TOKEN_REVIEW)}
