"""The pod fields that a job may set: an allow-list, so that no job can ask for a host path, a host network or root.

The shapes follow Kubernetes' core/v1 PodSpec, only what we pass on; every list and map is bounded, since the CRD's
immutability rules are costed by the API server at creation.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import Model, Rule

Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QuantityText = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=QUANTITY)]
Quantity = Annotated[int, Field(ge=0)] | QuantityText
"""An amount as Kubernetes writes it: 2, "500m", "8Gi"."""

_FACTORS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
            "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}  # fmt: skip


def quantity(value: int | str) -> float:
    """The amount as a number: cores, bytes or devices. Kubernetes' resource.Quantity, decimal and binary suffixes."""
    if isinstance(value, int):
        return float(value)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", value)
    assert match, f"{value} passed validation as a quantity"
    return float(match[1]) * _FACTORS[match[2]]


class Resources(Model):
    """Compute resources of one pod, as in core/v1 ResourceRequirements; any extended resource may be named."""

    requests: dict[LabelKey, Quantity] | None = Field(None, max_length=16, description="What the scheduler reserves, such as cpu, memory or nvidia.com/gpu.")
    limits: dict[LabelKey, Quantity] | None = Field(None, max_length=16, description="What the pod may use at most; accelerators go here.")

    @property
    def accelerators(self) -> int:
        """Whole devices named by an extended resource whose name ends in /gpu (nvidia.com/gpu, amd.com/gpu)."""
        return sum(int(quantity(v)) for k, v in {**(self.requests or {}), **(self.limits or {})}.items() if k.endswith("/gpu"))


class Toleration(Model):
    """A taint that the pod tolerates (core/v1 Toleration)."""

    key: str | None = Field(None, max_length=317, description="The taint's key; empty with operator Exists matches all taints.")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="How the value is compared.")
    value: str | None = Field(None, max_length=63, description="The taint's value, for operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="The taint's effect; absent matches all.")
    toleration_seconds: int | None = Field(None, ge=0, description="How long a NoExecute taint is tolerated, in seconds.")


class Requirement(Model):
    """One label expression (core/v1 NodeSelectorRequirement, meta/v1 LabelSelectorRequirement)."""

    key: str = Field(max_length=317, description="The label's key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(description="How the values are compared.")
    values: tuple[LabelValue, ...] | None = Field(None, max_length=32, description="The values, for In, NotIn, Gt and Lt.")


class NodeTerm(Model):
    """Labels that a node must all have."""

    match_expressions: tuple[Requirement, ...] = Field(max_length=16, min_length=1, description="Label expressions, all of which must hold.")


class NodeTerms(Model):
    """Alternatives of node labels."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(max_length=8, min_length=1, description="Terms, one of which must hold.")


class PreferredNodeTerm(Model):
    """A weighted wish for a node."""

    weight: int = Field(ge=1, le=100, description="Weight among the wishes.")
    preference: NodeTerm = Field(description="The labels wished for.")


class NodeAffinity(Model):
    """Which nodes the pods must or should run on (core/v1 NodeAffinity)."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = Field(None, description="Must hold at scheduling.")
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodeTerm, ...] | None = Field(None, max_length=8, description="Should hold at scheduling.")


class LabelSelector(Model):
    """Which pods are meant (meta/v1 LabelSelector)."""

    match_labels: dict[LabelKey, LabelValue] | None = Field(None, max_length=16, description="Labels that must all be equal.")
    match_expressions: tuple[Requirement, ...] | None = Field(None, max_length=16, description="Expressions that must all hold.")


class PodTerm(Model):
    """Pods to be near to or far from (core/v1 PodAffinityTerm), in the job's namespace."""

    label_selector: LabelSelector = Field(description="Which pods are meant.")
    topology_key: str = Field(min_length=1, max_length=317, description="The node label that says what near means.")


class WeightedPodTerm(Model):
    """A weighted wish about other pods."""

    weight: int = Field(ge=1, le=100, description="Weight among the wishes.")
    pod_affinity_term: PodTerm = Field(description="The pods meant.")


class PodAffinity(Model):
    """Near to or far from other pods (core/v1 PodAffinity and PodAntiAffinity)."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] | None = Field(None, max_length=8, description="Must hold at scheduling.")
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodTerm, ...] | None = Field(None, max_length=8, description="Should hold at scheduling.")


class Affinity(Model):
    """Where the pods may run (core/v1 Affinity)."""

    node_affinity: NodeAffinity | None = Field(None, description="By node labels.")
    pod_affinity: PodAffinity | None = Field(None, description="Near to pods.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Far from pods.")


class KeyRef(Model):
    """A key of a Secret or ConfigMap in the job's namespace."""

    name: Name = Field(description="Name of the object.")
    key: Key = Field(description="Key within it.")


class EnvVar(Model):
    """An environment variable of the trainer's containers, such as HTTPS_PROXY."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(description="The variable's name.")
    value: str | None = Field(None, max_length=4096, description="Its value. Put secrets into secretKeyRef instead.")
    secret_key_ref: KeyRef | None = Field(None, description="Take the value from a Secret.")
    config_map_key_ref: KeyRef | None = Field(None, description="Take the value from a ConfigMap.")

    RULES = (
        Rule(
            "(has(self.value) ? 1 : 0) + (has(self.secretKeyRef) ? 1 : 0) + (has(self.configMapKeyRef) ? 1 : 0) == 1",
            "set exactly one of value, secretKeyRef and configMapKeyRef",
            lambda s: sum(x is not None for x in (s.value, s.secret_key_ref, s.config_map_key_ref)) == 1,
        ),
        Rule(
            "!self.name.startsWith('FINETUNE_')",
            "name: variables that start with FINETUNE_ are the operator's own; choose another name",
            lambda s: not s.name.startswith("FINETUNE_"),
            field="name",
        ),
    )


class ObjectRef(Model):
    """An object in the job's namespace."""

    name: Name = Field(description="Name of the object.")
